"""The environment is read in one module."""

import ast
from pathlib import Path

import candlemill
from candlemill.config import VARIABLES

ROOT = Path(candlemill.__file__).parent
# A child's environment, where temporary files go, and a limit for NumPy that must be set before it is imported.
OTHERS = {"config.py", "checks/fresh_process.py", "local/db_server.py", "cli/__init__.py"}


def test_only_config_reads_the_environment() -> None:
    readers = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
                readers.add(str(path.relative_to(ROOT)))
    assert readers - OTHERS == set()


def test_every_variable_is_in_the_operations_page() -> None:
    page = (ROOT.parents[1] / "docs/operations.md").read_text()
    assert [name for name in VARIABLES if f"`{name}`" not in page] == []
