"""Descriptions of plugins' strategies: a worker process runs their code, and this process plans with the results."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from candlemill.backtests.grid import parameters_of
from candlemill.errors import BadPlugin, BadStrategy, CandlemillError
from candlemill.local import strategy_limits
from candlemill.local.limited_workers import LimitedWorkers
from candlemill.local.strategy_limits import Limits, limits_of
from candlemill.strategies import loader
from candlemill.strategies.base import Strategy, lookback_of, needs_of, warm_up_of
from candlemill.strategies.described import Described
from candlemill.strategies.registry import build, describe_by, source_digest

SECONDS = 10.0  # for work that takes microseconds
KEPT = 200_000  # parameter sets

Key = tuple[str, str, bytes]


class Describer:
    """Cache of descriptions by strategy and parameters, up to a limit; errors are cached too, as they may take long."""

    def __init__(self, folder: str) -> None:
        self._limits = limits_of("strategies", SECONDS, 1, folder)
        self._workers = LimitedWorkers(1, self._limits)
        self._lock = threading.Lock()
        self._known: dict[Key, Described | CandlemillError] = {}

    def describe(self, name: str, params: Mapping[str, object]) -> Strategy:
        """Return the description of the strategy that `build` would make. Raises the errors of `build`."""
        key = name, source_digest(name), msgspec.json.encode(params, order="sorted")
        with self._lock:
            if key not in self._known:
                if len(self._known) >= KEPT:
                    self._known.clear()
                self._known[key] = self._ask(name, params)
            found = self._known[key]
        if isinstance(found, CandlemillError):
            raise found
        return found

    def _ask(self, name: str, params: Mapping[str, object]) -> Described | CandlemillError:
        self._workers.limits = limits_of(name, SECONDS, 1, self._limits.folder)
        try:
            arguments = (self._limits, loader.reference(name), name, dict(params))
            found: Described = self._workers.finish(_describe, *arguments, seconds=SECONDS)
            return found
        except CandlemillError as error:
            return error

    def try_file(self, path: Path) -> None:
        """Run a strategy file once in a worker process. Raises BadPlugin."""
        self._workers.limits = msgspec.structs.replace(self._limits, strategy=path.name, origin=str(path))
        with self._lock:
            try:
                self._workers.finish(_try, self._limits, path, seconds=SECONDS)
            except BadStrategy as error:
                raise BadPlugin(str(error)) from None

    def close(self) -> None:
        self._workers.kill()


@contextmanager
def described_elsewhere() -> Iterator[None]:
    """Context in which this process runs no code of the operator's strategies.
    The only exception is code that defines their classes and that a worker process has already run. Errors of a file
    are among the problems of `loader.load_offered`."""
    with TemporaryDirectory(prefix="candlemill-") as folder:
        describer = Describer(folder)
        try:
            loader.load_offered(describer.try_file)
            describe_by(describer.describe)
            yield
        finally:
            describe_by(None)
            describer.close()


# -- in the worker -------------------------------------------------------------------------------------------------


def _describe(limits: Limits, reference: str, name: str, params: dict[str, object], seconds: float) -> Described:
    strategy_limits.begin(limits)
    with strategy_limits.within(seconds):
        loader.load(reference)
        made = build(name, params)
        return Described(parameters_of(made), lookback_of(made), warm_up_of(made), needs_of(made))


def _try(limits: Limits, path: Path, seconds: float) -> None:
    strategy_limits.begin(limits)
    with strategy_limits.within(seconds):
        loader.try_file(path)
