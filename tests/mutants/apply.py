"""Run tests over changed code: `apply.py FOLDER < JSON`, a list of {module, text, tests}; print which are caught.

The engine runs as plain Python here. Each change is made in a process of its own, in which the functions and constants
that differ are replaced in place, so that nothing is imported again.
"""

import ast
import importlib
import json
import os
import signal
import sys
import types
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

CORE = Path(__file__).parents[2] / "core"
LIBRARIES = ("pytest", "hypothesis", "numpy", "msgspec", "candlemill.cli.main")
LIBRARIES += (
    "candlemill.ingest.candles",
    "candlemill.store.clickhouse",
    "candlemill.local.runner",
)  # not chdb: threads
OPTIONS = ["-o", "addopts=--strict-markers", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:timeout", "-W", "ignore"]
SECONDS = 120  # for the tests of a change: some changes never end


class PlainPython(MetaPathFinder):
    """Finds the sources of candlemill, never its compiled modules."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        file = CORE / (fullname.replace(".", "/") + ".py")
        if not fullname.startswith("candlemill.") or not file.is_file():
            return None
        return spec_from_file_location(fullname, file, loader=SourceFileLoader(fullname, str(file)))


def codes(code: types.CodeType) -> Iterator[tuple[str, types.CodeType]]:
    """The code of functions of a module and of its classes, by qualified names."""
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield one.co_qualname, one
            yield from codes(one)


def replace(module: str, text: str) -> None:
    """Give a module the functions and constants of another text. Raises AssertionError if that changes nothing."""
    loaded = importlib.import_module(module)
    assert loaded.__file__ is not None
    old = Path(loaded.__file__).read_text()
    before, after = (dict(codes(compile(one, loaded.__file__, "exec", dont_inherit=True))) for one in (old, text))
    changed = [name for name in before if "<" not in name and before[name] != after[name]]
    done = 0
    for name in changed:
        found: Any = loaded
        for part in name.split("."):
            found = getattr(found, part)
        found = getattr(found, "__wrapped__", found)
        if isinstance(found, types.FunctionType):  # not the body of a class, which has the functions in it
            found.__code__ = after[name]
            done += 1
    for was, now in zip(ast.parse(old).body, ast.parse(text).body, strict=True):
        if isinstance(now, ast.AnnAssign | ast.Assign) and ast.dump(was) != ast.dump(now) and now.value is not None:
            target = now.target if isinstance(now, ast.AnnAssign) else now.targets[0]
            setattr(loaded, ast.unparse(target), eval(ast.unparse(now.value), vars(loaded)))
            done += 1
    assert done == 1, (module, changed)


def is_caught(module: str, text: str, tests: list[str], base: Path) -> bool:
    import pytest

    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            sys.stdout = sys.stderr
            os.dup2(2, 1)
            signal.alarm(SECONDS)
            replace(module, text)
            status = int(pytest.main([*OPTIONS, f"--basetemp={base}", *tests]))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            status = 99
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended in (0, 1), f"{module}: the tests ended with {ended}"
    return ended == 1


def main() -> None:
    sys.meta_path.insert(0, PlainPython())
    requested = json.load(sys.stdin)
    for library in (*LIBRARIES, *(one["module"] for one in requested)):  # before processes are forked, for all of them
        importlib.import_module(library)
    print(json.dumps([is_caught(one["module"], one["text"], one["tests"], Path(sys.argv[1])) for one in requested]))


if __name__ == "__main__":
    main()
