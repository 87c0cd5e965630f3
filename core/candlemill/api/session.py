"""Sources of candles of the Python API: a database, opened for each call, or the user's own candles.

The embedded database allows one process at a time, so nothing is kept open between calls, except by `cm.open`; calls
from several threads of a notebook run one after the other.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from candlemill import config
from candlemill.api.candles import TURNS, Candles, candles_of
from candlemill.errors import BadInput, one_line
from candlemill.local.runner import JobRunner
from candlemill.progress import progress_bar
from candlemill.store.base import Store
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import FrozenIndex
from candlemill.stored_days import Day
from candlemill.strategies import REGISTERED, Strategy, loader
from candlemill.strategies.bytecode_digest import adopt
from candlemill.strategies.registry import parameter_fields

StrategyLike = str | type[Strategy] | Strategy


class Source(msgspec.Struct, frozen=True):
    """A database by its DSN, or the user's own candles in memory."""

    dsn: str
    candles: tuple[Candles, ...] = ()

    @contextmanager
    def runner(self, strategy_seconds: float | None = None) -> Iterator[JobRunner]:
        with TURNS:
            if not self.candles and self.dsn in _opened:
                opened = _opened[self.dsn]
                index = FrozenIndex(opened.store, complete=opened.complete if opened.store.embedded else None)
                yield JobRunner(opened.store, index, strategy_seconds=strategy_seconds)
                return
            with self._store() as store:
                yield JobRunner(store, strategy_seconds=strategy_seconds)

    def _store(self) -> Store:
        if self.candles:
            found: Store = self.candles[0].store(*self.candles[1:])
            return found
        return ClickHouseStore(self.dsn)


class _Opened(msgspec.Struct):
    """A store that is kept open, by how many sessions, and the days of its symbols that were found complete."""

    store: ClickHouseStore
    sessions: int = 0
    complete: dict[str, Sequence[Day]] = {}


_opened: dict[str, _Opened] = {}


def keep_open(dsn: str) -> None:
    """Open a store for all calls until `let_go`, with what saves queries while it is open: candles that were read, and
    the keys of an embedded database, to which no other process can write."""
    with TURNS:
        if dsn not in _opened:
            store = ClickHouseStore(dsn)
            store.keep()
            _opened[dsn] = _Opened(store)
        _opened[dsn].sessions += 1


def let_go(dsn: str) -> None:
    """Close a store that `keep_open` has opened, with the last of its sessions."""
    with TURNS:
        _opened[dsn].sessions -= 1
        if not _opened[dsn].sessions:
            _opened.pop(dsn).store.close()


def source_of(given: Any, store: str | None) -> tuple[Source, list[str]]:
    """Return the source and the symbols' names of a symbol, a Candles object, or a list of either. Raises BadInput."""
    several = list(given) if isinstance(given, list | tuple) else [candles_of(given)]
    if several and all(isinstance(one, Candles) for one in several):
        if store is not None:
            raise BadInput("results of your own candles are kept in memory: leave store out")
        return Source("", tuple(several)), [one.symbol for one in several]
    if several and all(isinstance(one, str) for one in several):
        return Source(config.dsn(store)), several
    raise BadInput(
        one_line(f"{given!r:.80} is neither a symbol nor Candles, nor several of one kind: ")
        + "make them of your own data with cm.Candles.from_pandas, from_polars, from_arrow or from_columns"
    )


class StrategyRef(msgspec.Struct, frozen=True):
    """A strategy as the caller gave it: a name, a class or an instance."""

    given: StrategyLike

    def load(self) -> str:
        """Register the strategy in its present version and return its name."""
        if isinstance(self.given, str):
            return loader.load(self.given)
        return adopt(self.given if isinstance(self.given, type) else type(self.given))

    def params(self) -> dict[str, object]:
        """Return the parameters of an instance, none for a name or a class."""
        if isinstance(self.given, str | type):
            return {}
        return {name: getattr(self.given, field) for name, field in parameter_fields(type(self.given)).items()}

    def workers(self, given: int | None) -> int | None:
        """Return the number of workers: 1 for a class, which other processes cannot load. Raises BadInput for more."""
        if isinstance(self.given, str) or self.load() in _BUILT_IN:
            return given
        if given is not None and given > 1:
            raise BadInput(f"workers={given}: other processes load a strategy as FILE.py:Class; this is a class")
        return 1


_BUILT_IN = frozenset(REGISTERED)


def progress_of(text: str, shown: bool | None) -> progress_bar:
    """Return the command line's progress bar. `shown` None: show it on a terminal, and in a notebook, whose stderr is
    not a terminal."""
    return progress_bar(text, None if shown is None and "ipykernel" not in sys.modules else shown is False)
