"""Inserts into an embedded database without the temporary file that its client writes for each."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from candlemill.errors import StoreError
from candlemill.store import fatal_signals
from candlemill.store.embedded import engine_package

NO_SETTINGS: Mapping[str, str] = {}


class Inserter:
    """A handle of its own on a folder that this process has open. Opening one takes as long as ten inserts."""

    def __init__(self, folder: str) -> None:
        self._handle: Any = engine_package().connect(folder)
        self._handle.query("SET date_time_input_format = 'best_effort'")  # as the client of the engine does
        self._lock = threading.Lock()
        fatal_signals.restore()

    def insert(
        self,
        table: str,
        names: Sequence[str],
        form: str,
        pieces: Iterable[bytes],
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> None:
        """Append rows, encoded in ClickHouse's format `form`, as one insert. Raises StoreError; then nothing is added
        but whole partitions."""
        columns = f" ({', '.join(names)})" if names else ""
        given = ", ".join(f"{name} = {value}" for name, value in settings.items())
        sql = f"INSERT INTO {table}{columns}" + (f" SETTINGS {given}" if given else "")
        with self._lock:
            try:
                stream = self._handle.send_insert(sql, form)
                try:
                    for piece in pieces:
                        stream.append(piece)
                except BaseException:
                    stream.cancel()
                    raise
                stream.finish()
            except RuntimeError as error:  # what chDB raises for everything
                raise StoreError(f"the database refused: {' '.join(str(error).split())[:300]}") from error

    def close(self) -> None:
        self._handle.close()
