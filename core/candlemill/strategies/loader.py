"""Loads strategies from a file named on the command line, the operator's folder and installed packages.

Loading a strategy runs its code, so only the operator of the program chooses what is loaded. A job that arrives as an
event can only name a strategy that is loaded already.
"""

import ast
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from candlemill.config import STRATEGIES_VARIABLE, strategies_folder
from candlemill.errors import BadPlugin, CandlemillError, UnknownName, one_line
from candlemill.strategies.base import Strategy, can_be_interrupted, text_of
from candlemill.strategies.registry import REGISTERED, origin, register

GROUP = "candlemill.strategies"
COMPILED_ENDINGS = (".so", ".pyd")

_FILE = re.compile(r"(.+\.py)(?::([A-Za-z_]\w*))?")
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_problems: list[list[str]] = []  # of loading the offered strategies; empty before
_references: dict[str, str] = {}  # of strategies from files: the argument of `load`, so that no other file is run


def load(text: str) -> str:
    """Register the strategy `NAME`, `FILE.py` or `FILE.py:CLASS`; return its name, which contains no path.

    Raises BadPlugin for a file that cannot be used and UnknownName for an unknown name.
    """
    found = _FILE.fullmatch(text)
    if found:
        return _load_named(Path(found[1]), found[2] or "")
    if text in REGISTERED:
        return text
    for point in entry_points(group=GROUP, name=text):
        _load_entry_point(point)
        return text
    problems = load_offered()
    if text not in REGISTERED:
        known = sorted(REGISTERED)
        lost = f"; not loaded: {problems[0]}" if problems else ""
        raise UnknownName("strategy", text, known, f"known are {', '.join(known)}{lost}")
    return text


def reference(name: str) -> str:
    """Return the argument with which `load` loads the same strategy in another process of this machine."""
    return _references.get(name, name)


def is_plugin(name: str) -> bool:
    """Return whether another process can load this plugin strategy, so that its code runs only in worker processes."""
    return origin(name).endswith(".py") or " = " in origin(name)


def load_offered(try_first: Callable[[Path], None] = lambda path: None) -> list[str]:
    """Register, once, the strategies of installed packages and the operator's folder; return one line per problem.

    `try_first` is called with each file and raises BadPlugin to refuse it.
    """
    if not _problems:
        _problems.append(_load_offered(try_first))
    return _problems[0]


def has_offers() -> bool:
    """Return whether installed packages or the operator's folder offer strategies."""
    return strategies_folder() is not None or bool(entry_points(group=GROUP))


def _load_offered(try_first: Callable[[Path], None]) -> list[str]:
    problems = []
    for point in sorted(entry_points(group=GROUP)):
        try:
            _load_entry_point(point)
        except BadPlugin as error:
            problems.append(str(error))
    folder = strategies_folder()
    if folder is not None and not folder.is_dir():
        problems.append(f"{STRATEGIES_VARIABLE}={folder} is not a folder")
    for path in sorted(folder.glob("*.py")) if folder is not None else []:
        if path.name.startswith(("_", "test_")):
            continue
        try:
            try_first(path)
            module, digest = _execute(path)
            for kind in _kinds_in(module):
                register(name_of(kind.__name__), kind, str(path), digest)
                _references[name_of(kind.__name__)] = f"{path}:{kind.__name__}"
        except BadPlugin as error:
            problems.append(str(error))
    return problems


def try_file(path: Path) -> None:
    """Run a strategy file without registering its strategies. Raises BadPlugin."""
    _execute(path)


# -- files ---------------------------------------------------------------------------------------------------------


def _load_named(path: Path, class_name: str) -> str:
    path = path.resolve()
    module, digest = _execute(path)
    kinds = _kinds_in(module)
    names = ", ".join(kind.__name__ for kind in kinds) or "none"
    if class_name:
        kind = vars(module).get(class_name)
        if kind is None:
            raise BadPlugin(f"{path.name} has no {class_name}; its strategies: {names}")
    elif len(kinds) == 1:
        kind = kinds[0]
    elif kinds:
        raise BadPlugin(f"{path.name} has several strategies, {names}: name one, as in {path.name}:{kinds[0].__name__}")
    else:
        raise BadPlugin(f"{path.name} has no class derived from candlemill.strategies.Windowed or Stateful")
    name = name_of(kind.__name__) if isinstance(kind, type) else class_name.lower()
    register(name, kind, str(path), digest)
    _references[name] = f"{path}:{kind.__name__}"
    return name


def _kinds_in(module: ModuleType) -> list[type[Strategy]]:
    """Return the strategies that the module itself defines."""
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, Strategy)
        and kind.__module__ == module.__name__
        and not kind.__name__.startswith("_")
    ]


def name_of(kind: str) -> str:
    """Return the public name of a class: `RsiFade` becomes rsi_fade."""
    return _WORD_STARTS.sub("_", kind).lower()


def _execute(path: Path) -> tuple[ModuleType, str]:
    """Run the file; return its module, and the digest of its source and of the modules it imports from its folder."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadPlugin(f"strategy file {path}: {error.strerror}") from None
    with _in_one_line(path.name):
        beside = _imported_beside(path, source)
        digest = hashlib.sha256(source)
        for name, content in sorted(beside.items()):
            digest.update(b"\0" + name.encode() + b"\0" + content)
        module = ModuleType(f"candlemill_plugins.{digest.hexdigest()[:16]}.{path.stem}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module  # type hints are resolved there
        with _folder_importable(path.parent, list(beside)):
            exec(compile(source, str(path), "exec"), vars(module))
    return module, digest.hexdigest()


def _imported_beside(path: Path, source: bytes) -> dict[str, bytes]:
    """Return the sources, by name, of the modules in the file's folder that it imports, directly or indirectly."""
    found: dict[str, bytes] = {}
    waiting = [source]
    while waiting:
        for name in _imports(waiting.pop()):
            file = path.parent / f"{name}.py"
            if name in found or not file.is_file():
                continue
            _check_compiled(file)
            found[name] = file.read_bytes()
            waiting.append(found[name])
    return found


def _imports(source: bytes) -> set[str]:
    """Return the top-level names of all modules that a source imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _check_compiled(file: Path) -> None:
    """Refuse a compiled module older than its source, because Python would run it instead of the newer source."""
    for other in file.parent.glob(f"{file.stem}.*"):
        if other.suffix in COMPILED_ENDINGS and other.stat().st_mtime < file.stat().st_mtime:
            raise BadPlugin(f"{other.name} is older than {file.name}: compile it again or delete it")


@contextmanager
def _folder_importable(folder: Path, beside: list[str]) -> Iterator[None]:
    """Make the modules of a folder importable while a file is run; each is imported again."""
    for name in beside:
        if _folder_of(name) == folder:
            del sys.modules[name]
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = wrote
    for name in beside:
        if name in sys.modules and _folder_of(name) != folder:
            raise BadPlugin(f"{name}.py in {folder.name} has the name of another module, which was taken: rename it")


def _folder_of(name: str) -> Path | None:
    file = getattr(sys.modules.get(name), "__file__", None)
    return None if file is None else Path(file).resolve().parent


# -- installed packages --------------------------------------------------------------------------------------------


def _load_entry_point(point: EntryPoint) -> None:
    """Register an entry point's strategy. Its digest covers the module, or all modules of its package."""
    with _in_one_line(f"entry point {point.name} = {point.value}"):
        kind = point.load()
        root = sys.modules[point.module.partition(".")[0]]
        folders = [Path(place) for place in getattr(root, "__path__", [])]
        files = [file for folder in folders for file in sorted(folder.rglob("*.py"))] or [Path(str(root.__file__))]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        register(point.name, kind, f"{point.name} = {point.value}", digest.hexdigest())


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Convert every error of a plugin's code to a BadPlugin that begins with `what`; send its prints to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except CandlemillError as error:
        raise BadPlugin(f"{what}: {error}") from None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and can_be_interrupted():
            raise
        raise BadPlugin(one_line(f"{what}: {type(error).__name__}: {text_of(error)}")) from error
