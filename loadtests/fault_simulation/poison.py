"""Events that nobody should send: real ones with something in them replaced, as bugs and enemies would."""

from contextlib import suppress
from typing import Any

import msgspec
from candlemill.pipeline.events import Event

from loadtests.fault_simulation.faults import Dice

KIND, PLACE, VALUE = range(4_000, 4_003)  # the dice's questions
VALUES: list[Any] = [
    None, -1, 0, 1, 7, 10**30, 0.5, True, "", "x", "f" * 32, "../../etc", "x" * 3_000, [], [1], {}, {"job_id": "x"},
]  # fmt: skip


def poisoned(event: Event, dice: Dice, k: int) -> Event:
    """The event with one thing in it changed, under an id of its own."""
    data = event.data
    kind = dice.between(0, 9, KIND, k)
    if kind == 0:
        data = data[: len(data) // 2]
    elif kind == 1:
        data = b"\xff\x00not JSON"
    elif kind == 2:
        data = b"[" * 2_000
    else:
        with suppress(msgspec.DecodeError, RecursionError):  # where it is poison already
            found = msgspec.json.decode(data)
            _replace(found, dice, k)
            data = msgspec.json.encode(found)
    key = event.partitionkey if kind != 4 else "nobody's"
    return msgspec.structs.replace(event, id=f"{k:015x}{event.id[15:]}", data=data, partitionkey=key, error="")


def _replace(found: Any, dice: Dice, k: int) -> None:
    """Put something else somewhere into a JSON value."""
    depth = 0
    while True:
        names: list[Any] = sorted(found) if isinstance(found, dict) else list(range(len(found)))
        if not names:
            return
        name = names[dice.between(0, len(names) - 1, PLACE, k, depth)]
        depth += 1
        inside = found[name]
        if isinstance(inside, dict | list) and inside and dice.between(0, 3, PLACE, k, depth, 1):
            found = inside
            continue
        found[name] = VALUES[dice.between(0, len(VALUES) - 1, VALUE, k)]
        return
