"""Write the JSON Schema of every event type's data to schema/events/TYPE.json, from the code."""

import json
from pathlib import Path

from candlemill import events


def text(kind: str) -> str:
    """A schema file's content: sorted and indented, so that a change of the code is a readable change here."""
    return json.dumps(events.schema(kind), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    folder = Path(__file__).parent / "events"
    folder.mkdir(exist_ok=True)
    for kind in events.DATA:
        (folder / f"{kind}.json").write_text(text(kind))
