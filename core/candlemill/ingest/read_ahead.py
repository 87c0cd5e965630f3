"""Reading of kline files in other threads, some of them ahead, also while the store is opened."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from candlemill.errors import BadFile
from candlemill.exchanges.binance.kline_files import Candles
from candlemill.ingest.files import KlineFile, find_kline_files, load

THREADS = 2
AHEAD = 12  # files

Loaded = tuple[KlineFile, Candles | BadFile, int]  # the last: digits of the volumes


class ReadAhead:
    """The kline files among `paths`, as `find_kline_files` finds them. Reads the first ones at once, with volumes of
    `digits`: a guess, since it takes the store to say."""

    def __init__(self, paths: Sequence[Path], market: str | None, digits: int) -> None:
        self.found = find_kline_files(paths, market)
        self._pool = ThreadPoolExecutor(THREADS)
        self._waiting: deque[Future[Loaded]] = deque()
        self._next = 0
        self._submit(lambda symbol: digits)

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def files(self, digits_of: Callable[[str], int]) -> Iterator[tuple[KlineFile, Candles | BadFile]]:
        """Yield each file with its candles or its refusal, in order. `digits_of` a symbol says what was guessed."""
        while self._waiting:
            file, loaded, guess = self._waiting.popleft().result()
            digits = digits_of(file.symbol)
            self._submit(digits_of)
            yield file, loaded if digits == guess else _read(file, digits)[1]

    def _submit(self, digits_of: Callable[[str], int]) -> None:
        while len(self._waiting) < AHEAD and self._next < len(self.found.files):
            file = self.found.files[self._next]
            self._waiting.append(self._pool.submit(_read, file, digits_of(file.symbol)))
            self._next += 1


def _read(file: KlineFile, digits: int) -> Loaded:
    try:
        return file, load(file.path, digits, file.market)[1], digits
    except BadFile as error:
        return file, error, digits
