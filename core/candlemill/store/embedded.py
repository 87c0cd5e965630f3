"""The embedded engine's package, without what its import would load in vain; and memory that nobody uses any more."""

import ctypes
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any


def engine_package() -> Any:
    """Import chDB and return it.

    It imports pyarrow, 44 MB and a tenth of a second, for formats that are not used here. It gets a stand-in, which
    loads pyarrow for a user of chDB who asks for these formats.
    """
    with _imported_late("pyarrow"):
        import chdb.state  # of its names only this one is imported with the package

    return chdb


def trim() -> None:
    """Return the free memory of this process to the system, where its C library can: a heap has gaps between what is in
    use, which it keeps otherwise."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class _Late(ModuleType):
    """Stand-in for a module that is imported when one of its names is used first."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _imported_late(name: str) -> Iterator[None]:
    """Context in which `import` gives a stand-in for a module that is installed and not imported yet."""
    if name in sys.modules or importlib.util.find_spec(name) is None:
        yield
        return
    late = sys.modules[name] = _Late(name)
    try:
        yield
    finally:
        if sys.modules.get(name) is late:
            del sys.modules[name]
