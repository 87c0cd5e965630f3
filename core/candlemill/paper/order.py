"""What a process is to run on paper."""

from collections.abc import Sequence

import msgspec

from candlemill.backtests.spec import Spec


class Order(msgspec.Struct, frozen=True):
    """What a process is to run: `specs` by the symbols' names in the store, from minute `begin` on (None: from now on,
    or as before), published from minute `since` on. `sink` is the address that events go to, empty for none."""

    specs: Sequence[Spec]
    begin: int | None = None
    since: int | None = None
    sink: str = ""
