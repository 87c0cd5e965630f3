"""Digests of strategies given as classes: defined in a notebook cell, in a script or in the user's module.

The address of a job must change when its code does. A cell has no file, and a file may have changed since it was
imported, so the digest covers the code that will run: the bytecode of the class, and of all functions, constants and
classes that it reaches by name. Installed packages count with their versions. Bytecode differs between releases of
Python; a strategy in a file, given as "FILE.py:Class", has the digest of its source, which is the same everywhere.
"""

import hashlib
import pickle
import sys
import types
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from candlemill.errors import BadInput, one_line
from candlemill.strategies import REGISTERED, Strategy, register
from candlemill.strategies.loader import name_of

_PLAIN = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis))
# Attributes in which wrappers (cached, compiled, bound, partial) keep the function and its arguments.
WRAPPED = ("__wrapped__", "py_func", "__func__", "__self__", "func", "args", "keywords")
# Attributes that msgspec and Python add to a class; the signature covers its fields.
_ADDED = frozenset({
    "__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "__struct_config__", "__struct_encode_fields__", "__match_args__", "__slots__", "__doc__", "__rich_repr__",
    "__annotate__", "__annotate_func__", "__annotations_cache__", "__post_init_hooks__",
})  # fmt: skip


def adopt(kind: type[Strategy]) -> str:
    """Register a strategy class and return its name; it replaces an earlier one of that name from the same source.

    Raises BadPlugin for a class that is no strategy, BadInput for one that uses an object without a digest.
    """
    known = [name for name, other in REGISTERED.items() if other is kind]
    if known and _is_installed(kind.__module__):
        return known[0]
    if not (isinstance(kind, type) and issubclass(kind, Strategy)):
        raise BadInput(one_line(f"{kind!r:.80} is neither a strategy's name, nor FILE.py:Class, nor a Strategy"))
    name = name_of(kind.__name__)
    register(name, kind, f"{kind.__module__}.{kind.__qualname__}", _Walk(kind).digest())
    return name


class _Walk:
    """A walk over all objects that determine a class's behaviour, in a fixed order, each object once."""

    def __init__(self, kind: type) -> None:
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # keeps objects alive, so that their ids stay unique
        self._name = kind.__name__
        self._hash = hashlib.sha256()
        self._add(kind)

    def digest(self) -> str:
        return self._hash.hexdigest()

    def _say(self, *parts: object) -> None:
        for part in parts:
            text = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
            self._hash.update(b"%d:" % len(text) + text)

    def _add(self, value: Any, names: Sequence[str] = ()) -> None:
        """Add a value; `names` are the attributes that code may read from a module."""
        if isinstance(value, _PLAIN):
            self._say(type(value).__name__, repr(value))
            return
        if isinstance(value, types.ModuleType):
            self._module(value, names)
            return
        if id(value) in self._seen:
            self._say("seen", self._seen[id(value)])
            return
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        self._one(value)

    def _one(self, value: Any) -> None:
        module = getattr(value, "__module__", None)
        if isinstance(value, type | types.FunctionType) and _is_installed(module):
            self._say("installed", module, value.__qualname__, _version(str(module)))
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.CodeType):
            self._code(value)
        elif isinstance(value, classmethod | staticmethod):
            self._say(type(value).__name__)
            self._add(value.__func__)
        elif isinstance(value, property):
            self._each("property", (value.fget, value.fset, value.fdel))
        elif isinstance(value, tuple | list):
            self._each(type(value).__name__, value)
        elif isinstance(value, set | frozenset):
            self._each(type(value).__name__, sorted(value, key=repr))
        elif isinstance(value, dict):
            self._each("dict", [part for item in value.items() for part in item])
        elif isinstance(value, np.ndarray) and value.dtype.kind != "O":
            self._say("array", value.dtype.str, value.shape, value.tobytes())
        elif isinstance(value, types.BuiltinFunctionType | np.ufunc | types.MethodDescriptorType):
            self._say("builtin", module or "", value.__name__, _version(str(module)))
        else:
            self._other(value)

    def _each(self, what: str, values: Sequence[Any]) -> None:
        self._say(what, len(values))
        for value in values:
            self._add(value)

    def _class(self, kind: type) -> None:
        self._say("class", kind.__name__)
        self._each("bases", kind.__bases__)
        self._say(repr(getattr(kind, "__struct_fields__", ())), repr(getattr(kind, "__struct_encode_fields__", ())))
        self._add(getattr(kind, "__struct_defaults__", ()))
        for name, value in sorted(vars(kind).items()):
            if name == "__annotations__":
                self._say(name, repr(value))
            elif name not in _ADDED and not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
                self._say(name)
                self._add(value)

    def _function(self, function: types.FunctionType) -> None:
        self._say("function", function.__name__)
        self._add(function.__code__)
        self._add(function.__defaults__)
        self._add(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            self._add(_inside(cell))
        names = _names(function.__code__)
        for name in names:
            if name in function.__globals__:
                self._say(name)
                self._add(function.__globals__[name], names)

    def _code(self, code: types.CodeType) -> None:
        """Add code without line numbers and file names, so that moving a cell does not change the digest."""
        self._say(code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        self._each("consts", code.co_consts)

    def _module(self, module: types.ModuleType, names: Sequence[str]) -> None:
        """Add a module: an installed one by its version, another one by the attributes that are used."""
        self._say("module", module.__name__)
        if _is_installed(module.__name__):
            self._say(_version(module.__name__))
            return
        for name in names:
            if name in vars(module):
                self._say(name)
                self._add(vars(module)[name], names)

    def _other(self, value: Any) -> None:
        """Add a wrapped function by the wrapped parts, an object by its class and attributes.

        Other objects are added by their pickle. This is the last choice: a pickle contains the names of functions and
        classes, not their code.
        """
        inside = [getattr(value, name) for name in WRAPPED if hasattr(value, name)]
        if not _is_installed(type(value).__module__):
            inside += [type(value), getattr(value, "__dict__", None)]
        if inside:
            self._each(type(value).__qualname__, inside)
        if hasattr(value, "__dict__") and inside:
            return
        try:
            self._say(type(value).__qualname__, pickle.dumps(value, protocol=5))
        except Exception as error:
            raise BadInput(
                one_line(
                    f"{self._name} uses {value!r:.60}, of which there is no digest ({error}): give the strategy as "
                    "FILE.py:Class, or make it a parameter"
                )
            ) from None


def _names(code: types.CodeType) -> list[str]:
    """Return all names that the code and its nested code look up, in order, each once."""
    return list(dict.fromkeys(name for part in _codes(code) for name in part.co_names))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _codes(const)


def _inside(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty: a class that refers to itself
        return None


@cache
def _is_installed(name: str | None) -> bool:
    """Return whether a module belongs to Python, to this program or to an installed package."""
    top = (name or "").partition(".")[0]
    if top == "__main__":
        return False
    if top in sys.stdlib_module_names or top == "candlemill":
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _version(name: str) -> str:
    """Return the version of an installed module. This program's own code is part of every job's address already."""
    top = name.partition(".")[0]
    return "" if top == "candlemill" else str(getattr(sys.modules.get(top), "__version__", sys.version.split()[0]))
