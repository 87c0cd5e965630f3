"""Which symbols of a panel may be held, as it was known at the time. SEMANTICS-2, section 13."""

import re
from collections.abc import Mapping
from fractions import Fraction

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import DAY_MS, Column
from candlemill.errors import BadInput

TOP_LIMIT, OVER_LIMIT, EVERY_LIMIT = 2_000, 3_650, 366  # symbols, days, days
_RULE = re.compile(r"top:([0-9]{1,6})((?::[a-z]+=[a-z0-9]+)*)")
_DAYS = re.compile(r"([0-9]{1,5})d")
_SYMBOL = re.compile(r"[^\s,:=*?\[\]]+(?::[^\s,:=*?\[\]]+)?")


class Universe(msgspec.Struct, frozen=True):
    """Rule of a universe: a fixed list of `names`, or the `top` symbols by turnover.

    At each instant of the calendar, the multiples of `every` days since 1970, those with the largest sum of close times
    volume over the `over` days before it, of those with a candle in the last day of them; of equal sums the name that
    comes first in the alphabet.
    """

    names: tuple[str, ...] = ()
    top: int = 0
    over: int = 30  # days
    every: int = 7  # days

    def __str__(self) -> str:
        """Return the canonical text."""
        return ",".join(self.names) or f"top:{self.top}:by=turnover:over={self.over}d:every={self.every}d"

    def instant_of(self, t: int) -> int:
        """Return the last instant of the calendar at or before `t`, in ms."""
        width = self.every * DAY_MS
        return t // width * width

    def reads_from(self, t: int) -> int:
        """Return the time (ms) of the first candle that decides the members at `t`."""
        return t if self.names else self.instant_of(t) - self.over * DAY_MS


class Members(msgspec.Struct, frozen=True):
    """Members of a universe: row k of `chosen` [I, K] holds from `instants[k]` (ms) on; before the first, none."""

    instants: Column
    chosen: NDArray[np.bool_]

    def at(self, times: Column) -> NDArray[np.bool_]:
        """Return the members at each time (ms): an array [T, K]."""
        none = np.zeros((1, self.chosen.shape[1]), dtype=np.bool_)
        rows = np.searchsorted(self.instants, times, side="right")
        found: NDArray[np.bool_] = np.concatenate((none, self.chosen))[rows]
        return found


Turnover = tuple[Mapping[int, int], int]  # sums of close times volume by day (its start in ms), and the volume's scale


def parse_universe(text: str) -> Universe:
    """Parse `top:50:by=turnover:over=30d:every=7d`, of which `by` to `every` may be left out, or `BTCUSDT,ETHUSDT`.
    Raises BadInput.
    """
    advice = "write it like top:50:by=turnover:over=30d:every=7d, or as a list like BTCUSDT,ETHUSDT"
    if not text.startswith("top:"):
        names = text.split(",")
        if not all(map(_SYMBOL.fullmatch, names)):
            raise BadInput(f"universe {text[:80]!r}: {advice}")
        return Universe(tuple(sorted(set(names))))
    found = _RULE.fullmatch(text)
    if found is None:
        raise BadInput(f"universe {text[:80]!r}: {advice}")
    pairs = [part.split("=") for part in found[2].split(":")[1:]]
    given = dict(pairs)
    if len(given) < len(pairs) or set(given) - {"by", "over", "every"} or given.get("by", "turnover") != "turnover":
        raise BadInput(f"universe {text[:80]!r}: {advice}")
    over, every = (_days(text, name, given.get(name, usual)) for name, usual in (("over", "30d"), ("every", "7d")))
    universe = Universe((), int(found[1]), over, every)
    for name, limit in (("top", TOP_LIMIT), ("over", OVER_LIMIT), ("every", EVERY_LIMIT)):
        if not 1 <= getattr(universe, name) <= limit:
            raise BadInput(f"universe {text[:80]!r}: {name} is not between 1 and {limit:,}")
    return universe


def _days(text: str, name: str, given: str) -> int:
    days = _DAYS.fullmatch(given)
    if days is None:
        raise BadInput(f"universe {text[:80]!r}: {name}={given} is no number of days, like 30d")
    return int(days[1])


def members_of(universe: Universe, turnovers: Mapping[str, Turnover], start: int, end: int) -> Members:
    """Return the members from `start` to `end` (ms).

    `turnovers` has each symbol's days from `universe.reads_from(start)` on; symbols are in alphabetical order.
    """
    names = sorted(turnovers)
    if universe.names:
        fixed = np.array([[name in universe.names for name in names]], dtype=np.bool_)
        return Members(np.array([start], dtype=np.int64), fixed)
    instants = range(universe.instant_of(start), end, universe.every * DAY_MS)
    chosen = np.zeros((len(instants), len(names)), dtype=np.bool_)
    for row, instant in enumerate(instants):
        chosen[row, _chosen(universe, turnovers, names, instant)] = True
    return Members(np.array(instants, dtype=np.int64), chosen)


def _chosen(universe: Universe, turnovers: Mapping[str, Turnover], names: list[str], instant: int) -> list[int]:
    """Return the numbers of the symbols chosen at an instant."""
    ranked = []
    for number, name in enumerate(names):
        days, scale = turnovers[name]
        if instant - DAY_MS in days:
            since = range(instant - universe.over * DAY_MS, instant, DAY_MS)
            ranked.append((-Fraction(sum(days.get(day, 0) for day in since), scale), number))
    return [number for _, number in sorted(ranked)[: universe.top]]


LIMB = 21  # bits
_MASK = (1 << LIMB) - 1


def turnover_of_days(t: Column, close: Column, volume: Column) -> dict[int, int]:
    """Return the exact sum of close times volume of each UTC day, by its start in ms.

    Closes are below 2^58, volumes below 2^63. They are split into limbs of 29 and 21 bits, whose products, added over a
    day, fit 64 bits.
    """
    if not len(t):
        return {}
    days = t // DAY_MS
    first = np.flatnonzero(np.diff(days, prepend=-1))
    sums = [0] * len(first)
    for high, one in ((29, close >> 29), (0, close & ((1 << 29) - 1))):
        for shift in (0, LIMB, 2 * LIMB):
            products = np.add.reduceat(one * (volume >> shift & _MASK), first).tolist()
            sums = [total + (product << (high + shift)) for total, product in zip(sums, products, strict=True)]
    return dict(zip((days[first] * DAY_MS).tolist(), sums, strict=True))
