"""The list of sources that decide a result, held against what the program really imports."""

import ast
from pathlib import Path

import candlemill
from candlemill.backtests.identity import DECIDING

ROOT = Path(candlemill.__file__).parent

# Imported on the way to a result, and without a say in it: why.
HARMLESS = {
    "backtests/account_log.py": "what a replay shows of a result",
    "backtests/grid.py": "which sets a sweep has; each set's parameters are in its own spec",
    "backtests/identity.py": "ids, made of the digests themselves",
    "backtests/options.py": "how options are written; what they come to is in the spec",
    "backtests/plan.py": "where a job is cut, which changes no bit",
    "backtests/spec.py": "the spec's bytes are part of a job's id already",
    "backtests/recording.py": "what a replay shows of a result",
    "backtests/trades.py": "what a replay shows of a result",
    "errors.py": "texts of refusals",
    "stored_days.py": "digests of candles, part of a job's id already",
    "strategies/__init__.py": "names only",
    "strategies/described.py": "stands for a strategy while `serve` plans; workers run the strategy itself",
    "strategies/registry.py": "names of strategies; their own code is in the list or, of plugins, in their digest",
}


def imported(path: Path) -> set[Path]:
    """The package's files that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "candlemill":
            module = ROOT.joinpath(*str(node.module).split(".")[1:])
            found |= {module.with_suffix(".py"), module / "__init__.py", *(module / f"{a.name}.py" for a in node.names)}
    return {one for one in found if one.exists() and one != ROOT / "__init__.py"}


def test_what_decides_a_result_is_in_the_code_digest_and_nothing_else() -> None:
    reached: set[Path] = set()
    waiting = {ROOT / f"backtests/{name}.py" for name in ("result", "daily", "panel", "settlement")}
    while waiting:
        path = waiting.pop()
        reached.add(path)
        waiting |= imported(path) - reached
    names = {str(path.relative_to(ROOT)) for path in reached} - set(HARMLESS)
    listed = {str(path.relative_to(ROOT)) for pattern in DECIDING for path in ROOT.glob(pattern)}
    idle = {"engine/__init__.py", "engine/compiled.py", "strategies/builtin/__init__.py"}
    assert listed - idle == names - idle
