"""Progress bars on stderr."""

from collections.abc import Callable
from typing import Any


class progress_bar:
    """Progress bar of tasks, shown after one second; `disable` None: disabled unless stderr is a terminal."""

    def __init__(self, text: str, disable: bool | None = None) -> None:
        self._text = text
        self._disable = disable
        self._bar: Any = None

    def __enter__(self) -> Callable[[int, int], None]:
        return self._update

    def _update(self, done: int, known: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(desc=self._text, unit="task", delay=1, disable=self._disable, dynamic_ncols=True)
        self._bar.total = known
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
