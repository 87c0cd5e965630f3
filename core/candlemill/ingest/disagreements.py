"""Files of one symbol that say different things about the same minutes."""

import msgspec
import numpy as np

from candlemill.exchanges.binance.kline_files import Candles, clean
from candlemill.ingest.files import KlineFile

FIGURES = ("open", "high", "low", "close", "volume")


class Disagreement(msgspec.Struct, frozen=True):
    """Minutes of which two files say different prices or volumes; those of `won`, the later in order, are stored."""

    symbol: str
    period: str  # of the file that won: 2021-04, or 2021-04-25
    won: str
    lost: str
    minutes: int
    first: int  # ms

    def __str__(self) -> str:
        return f"{self.symbol} {self.period}: {self.won} wins over {self.lost} in {self.minutes:,} minutes"


class Disagreements:
    """Compares files as they come, by symbol and month: only the files of one month are kept."""

    def __init__(self) -> None:
        self.found: list[Disagreement] = []
        self._month: tuple[str, int, int] | None = None
        self._earlier: list[tuple[KlineFile, Candles]] = []

    def add(self, file: KlineFile, candles: Candles) -> None:
        month = (file.symbol, file.name.year, file.name.month)
        if month != self._month:
            self._month, self._earlier = month, []
        ordered = clean(candles)
        for other, before in self._earlier:
            times = _different(before, ordered)
            if len(times):
                won, lost = str(file.path), str(other.path)
                self.found.append(Disagreement(file.symbol, file.name.period, won, lost, len(times), int(times[0])))
        self._earlier.append((file, ordered))


def _different(a: Candles, b: Candles) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The minutes of both that are not the same in both."""
    times, of_a, of_b = np.intersect1d(a.t, b.t, assume_unique=True, return_indices=True)
    different = np.zeros(len(times), dtype=np.bool_)
    for name in FIGURES:
        different |= getattr(a, name)[of_a] != getattr(b, name)[of_b]
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = times[different]
    return found
