"""Where the Python API's calls get their candles: the database, opened for each call, or tapes of one's own.

The embedded database lets one process at a time in, so nothing is kept open between calls; calls from several threads
of a notebook take turns.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from candlemill.cli_common import progress_bar
from candlemill.errors import BadInput
from candlemill.io import plugins, settings
from candlemill.io.given import adopt
from candlemill.io.jobs import Home
from candlemill.io.memory import MemoryStore
from candlemill.io.store import Store
from candlemill.owndata import Tape
from candlemill.strategies import REGISTERED, Strategy
from candlemill.strategies.registry import parameter_fields

_turns = threading.RLock()

StrategyLike = str | type[Strategy] | Strategy


class Source(msgspec.Struct, frozen=True):
    """A database by its DSN, or tapes."""

    dsn: str
    tapes: tuple[Tape, ...] = ()

    @contextmanager
    def home(self) -> Iterator[Home]:
        with _turns, self._store() as store:
            yield Home(store)

    def _store(self) -> Store:
        if len(self.tapes) == 1:
            found: Store = self.tapes[0].store()
            return found
        return MemoryStore(self.tapes) if self.tapes else Store(self.dsn)


def source_of(given: Any, store: str | None) -> tuple[Source, list[str]]:
    """What is meant by a symbol, a tape, or several of one kind; and the symbols' names."""
    several = list(given) if isinstance(given, list | tuple) else [given]
    if several and all(isinstance(one, Tape) for one in several):
        if store is not None:
            raise BadInput("a tape's results are kept in memory: leave store out")
        return Source("", tuple(several)), [one.symbol for one in several]
    if several and all(isinstance(one, str) for one in several):
        return Source(store or settings.dsn()), several
    raise BadInput(f"{given!r:.80} is neither a symbol nor a tape, nor several of one kind")


class Chosen(msgspec.Struct, frozen=True):
    """A strategy as it was given. What it is called, and whether worker processes can have it too."""

    given: StrategyLike

    def load(self) -> str:
        """Have it registered, as it is now. Its name."""
        if isinstance(self.given, str):
            return plugins.load(self.given)
        return adopt(self.given if isinstance(self.given, type) else type(self.given))

    def params(self) -> dict[str, object]:
        """Those of an instance."""
        if isinstance(self.given, str | type):
            return {}
        return {name: getattr(self.given, field) for name, field in parameter_fields(type(self.given)).items()}

    def workers(self, asked: int | None) -> int | None:
        """A class that only this process knows runs in it alone."""
        if isinstance(self.given, str) or self.load() in _BUILT_IN:
            return asked
        if asked is not None and asked > 1:
            raise BadInput(f"workers={asked}: other processes load a strategy as FILE.py:Class; this is a class")
        return 1


_BUILT_IN = frozenset(REGISTERED)


def progress_of(text: str, shown: bool | None) -> progress_bar:
    """The command line's bar. `shown` None: on a terminal and in a notebook, whose stderr is none."""
    return progress_bar(text, None if shown is None and "ipykernel" not in sys.modules else shown is False)
