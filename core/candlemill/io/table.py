"""What the parts of a Store that are about one table each have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from candlemill.io.seen import Seen


class Table(ABC):
    """How a part asks and writes. `seen` is what is known without asking."""

    seen: Seen | None = None

    @abstractmethod
    def _rows(self, sql: str, bound: dict[str, object]) -> Sequence[Sequence[Any]]: ...

    @abstractmethod
    def _insert(self, table: str, rows: Sequence[msgspec.Struct | dict[str, Any]]) -> None: ...

    @abstractmethod
    def _command(self, sql: str, bound: dict[str, object]) -> None: ...
