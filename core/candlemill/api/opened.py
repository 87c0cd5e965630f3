"""A store that stays open: `with cm.open() as s:`."""

from functools import partial
from os import PathLike
from typing import Any

from candlemill import config
from candlemill.api import calls, stored
from candlemill.api.session import keep_open, let_go
from candlemill.errors import UnknownName

CALLS = {
    **dict.fromkeys(("backtest", "sweep", "optimize", "walk_forward", "coverage", "candles"), calls),
    **dict.fromkeys(("diff", "jobs", "label", "load"), stored),
}


class Session:
    """The calls of `candlemill` on one open store, as in `s.backtest("BTCUSDT", "sma_cross")`. A context manager."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in CALLS:
            raise UnknownName("call", name, list(CALLS), f"a session has {', '.join(CALLS)}")
        return partial(getattr(CALLS[name], name), store=self.dsn)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *CALLS})

    def __enter__(self) -> "Session":
        keep_open(self.dsn)
        return self

    def __exit__(self, *_: object) -> None:
        let_go(self.dsn)


def open(store: str | PathLike[str] | None = None) -> Session:
    """Return a session that keeps a database open in a `with` block, which saves the opening at each call.

    All calls in the block that use this database share it, those of `candlemill` too. `store` is a DSN or the folder
    of an embedded database (default CANDLEMILL_CLICKHOUSE_DSN). That is open in one process at a time: others find it
    locked until the block ends.
    """
    return Session(config.dsn(store))
