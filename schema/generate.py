"""Write the JSON Schema of every event type's data to schema/events/TYPE.json."""

import json
from pathlib import Path

from candlemill.paper import decision
from candlemill.pipeline import events

DATA = {**events.DATA, **decision.DATA}


def text(kind: str) -> str:
    """Content of a schema file, sorted and indented for readable diffs."""
    return json.dumps(events.schema(kind, DATA[kind]), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    folder = Path(__file__).parent / "events"
    folder.mkdir(exist_ok=True)
    for kind in DATA:
        (folder / f"{kind}.json").write_text(text(kind))
