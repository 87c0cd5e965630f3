"""What a run of one whole job records for its replay."""

from dataclasses import dataclass, field

from candlemill.backtests.account_log import AccountLog
from candlemill.engine.fills import Curve, Fills


@dataclass
class Recording:
    """Fills and equity line of positions of -1, 0 and 1 in account units; in any other case the log of the account."""

    fills: Fills = field(default_factory=lambda: Fills(Curve()))
    account: AccountLog | None = None
