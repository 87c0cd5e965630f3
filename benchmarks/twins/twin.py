"""The C twin: `twin.c` compiled on the spot, and its figures as a dict of integers."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from ctypes import POINTER, Array, Structure, byref, c_int64
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from candlemill.engine.summary import FINE
from data.market import Market
from numpy.typing import NDArray

FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
COLUMNS = ("open", "high", "low", "close")
MONEY = ("profit", "drawdown", "fees", "gross_profit", "gross_loss")
COUNTED = ("fills", "trades", "wins", "exposure", "ambiguous", "days")
MILLION = 1_000_000


class Money(Structure):
    """An amount rounded down and its rest in millionths."""

    _fields_ = (("whole", c_int64), ("rest", c_int64))

    def exact(self) -> int:
        """In the engine's unit."""
        return (int(self.whole) * MILLION + int(self.rest)) * (FINE // MILLION)


class Input(Structure):
    _fields_ = (
        *((name, POINTER(c_int64)) for name in COLUMNS),
        ("n", c_int64),
        ("day_ends", POINTER(c_int64)),
        *((name, c_int64) for name in ("days", "fast", "slow", "fee", "slippage", "stop_loss", "take_profit")),
        ("day_equity", POINTER(Money)),
        ("sums", POINTER(c_int64)),
        ("above", POINTER(c_int64)),
    )


class Result(Structure):
    _fields_ = (*((name, Money) for name in MONEY), *((name, c_int64) for name in COUNTED))
    day_equity: Array[Money]

    def figures(self) -> dict[str, int]:
        found = {name: int(getattr(self, name)) for name in COUNTED}
        found |= {name: getattr(self, name).exact() for name in MONEY}
        return found | day_sums([equity.exact() for equity in self.day_equity])


def day_sums(equity: list[int]) -> dict[str, int]:
    """Sums of daily profits, which need more than 64 bits: they are added up outside of the loops."""
    profits = [after - before for before, after in pairwise([0, *equity])]
    return {"days": len(profits), "day_sum": sum(profits), "squares": sum(profit * profit for profit in profits)}


Loop = Callable[[], Result]


def compiler() -> str | None:
    return shutil.which("gcc") or shutil.which("cc")


class Twin:
    """The compiled loops on one market. Nothing is copied: the columns are the arrays of `market`."""

    def __init__(self, market: Market) -> None:
        self._library = _compiled()
        self._columns = {name: _contiguous(market.columns[name]) for name in COLUMNS}
        self._day_ends = _contiguous(market.day_ends)
        self._n = market.n
        self._sums = np.concatenate([[0], np.cumsum(market.columns["close"], dtype=np.int64)])  # for all pairs, as ours
        self._above = np.zeros(self._n // 64 + 2, dtype=np.int64)

    def prepared(
        self, fast: int, slow: int, fee: int, stop_loss: int = 0, take_profit: int = 0, by_crossings: bool = False
    ) -> Loop:
        """A call without arguments that runs the loop once: nothing else is left to be timed with it. `by_crossings` is
        the loop that looks at the account only where something happens, which knows no stops."""
        day_equity = (Money * len(self._day_ends))()
        given = Input(
            *(_pointer(self._columns[name]) for name in COLUMNS),
            self._n, _pointer(self._day_ends), len(self._day_ends), fast, slow, fee, 0, stop_loss, take_profit,
            day_equity,
        )  # fmt: skip
        out = Result()
        out.day_equity = day_equity
        function = self._library.cross_with_stops if stop_loss or take_profit else self._library.cross
        if by_crossings:
            function = self._library.cross_by_crossings
            given.sums, given.above = _pointer(self._sums), _pointer(self._above)
            out.arrays = self._sums, self._above  # which stay as long as the call

        def call() -> Result:
            function(byref(given), byref(out))
            return out

        return call


def _compiled() -> ctypes.CDLL:
    command = compiler()
    if command is None:
        raise SystemExit("the C twin needs gcc: install it, or choose rows that do without (--list)")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "twin.so"
        subprocess.run([command, *FLAGS, "-o", library, Path(__file__).with_name("twin.c")], check=True)
        return ctypes.CDLL(str(library))  # stays mapped after the file is gone


def _contiguous(column: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.ascontiguousarray(column, dtype=np.int64)


def _pointer(column: NDArray[np.int64]) -> Any:
    return column.ctypes.data_as(POINTER(c_int64))
