"""What a paper run publishes: decisions, and which minutes were replayed. CloudEvents, without a transport.

Times are UTC milliseconds, prices, quantities and money times 10^8, exposures parts per million.
"""

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import PaperLogRow

DECISION = "dev.candlemill.decision.v1"
REPLAYED = "dev.candlemill.paper.replayed.v1"

RunId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{16}$", max_length=16)]
Attempt = Annotated[int, Meta(ge=1)]


class StandingOrder(msgspec.Struct, frozen=True):
    """An order that rests after the minute: it trades `size` of exposure, or `part` of the position."""

    key: str
    side: Literal[-1, 1]
    kind: Literal["limit", "stop"]
    price: int
    size: int
    part: int
    oco: int
    stop: int
    take: int


class PaperFill(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fill in the minute: `what` is target, order, stop, take, liquidation or ruin. `quantity` is None where only the
    account's later figures tell it. `symbol` is that of a panel's fill."""

    side: Literal[-1, 1]
    what: str
    price: int
    quantity: int | None
    symbol: str = ""


class PanelPosition(msgspec.Struct, frozen=True):
    """What a panel wants and holds of one symbol: the same fields as in `Decision`."""

    symbol: str
    target: int | None
    exposure: int
    quantity: int


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a strategy has decided at the close of a minute, and what was filled in the minute. No real order exists.

    `target` is the exposure to hold, None if the strategy keeps what there is; `exposure` what is held. `stop` and
    `take` protect the position, 0 for none. `quantity` and `equity` are those of an account of real money, None in
    account units. `decides` is false for a minute that only has fills, or no longer has any after a replay. `changed`:
    target or orders differ from those of the minute before. `attempt` counts the versions of this minute's decision:
    the highest is valid. `state` is the digest of the run's state after the minute. `liquidation_price` is that of a
    position with margin. Of a panel, `symbol` has all symbols with commas between them, `positions` those with a target
    or a holding, `exposure` is their sum, and `target` None.
    """

    run: RunId
    symbol: str
    strategy: str
    minute: int
    attempt: Attempt
    decides: bool
    changed: bool
    target: int | None
    exposure: int
    stop: int
    take: int
    orders: list[StandingOrder]
    fills: list[PaperFill]
    quantity: int | None
    equity: int | None
    state: Digest
    liquidation_price: int | None = None
    positions: list[PanelPosition] = []


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """Candles, mark prices, funding rates or maintenance tiers at or after `minute` have changed or come late, so the
    run was replayed from there. Decisions that are different now follow, each with its next attempt. `replay` counts
    the replays of the run."""

    run: RunId
    symbol: str
    strategy: str
    minute: int
    reason: Literal["late", "corrected"]
    replay: Attempt


DATA: dict[str, type[msgspec.Struct]] = {DECISION: Decision, REPLAYED: Replayed}


def event_of(row: PaperLogRow) -> Event:
    """Return the event of a row of the log. Its id is a function of its type, run, minute and number alone."""
    identity = f"{row.event}\0{row.run_id}\0{row.t}\0{row.attempt}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return Event(id=digest, source="/candlemill/paper", type=row.event, data=row.data.encode(), partitionkey=row.run_id)
