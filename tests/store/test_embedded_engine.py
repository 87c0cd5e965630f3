"""What opening an embedded database loads, and what it leaves for later."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

PROGRAM = """
    import sys
    from candlemill.store.connection import connect
    client = connect("chdb://" + sys.argv[1])
    assert len(client.query("SELECT 1").result_rows) == 1
    client.close()
    assert not [name for name in sys.modules if name.startswith("pyarrow")]

    import chdb
    table = chdb.connect(sys.argv[1]).query("SELECT number FROM numbers(3)", "arrowtable")
    assert table.column("number").to_pylist() == [0, 1, 2], table

    import pyarrow
    assert isinstance(table, pyarrow.Table) and type(pyarrow).__name__ == "module"
"""


def test_opening_a_database_does_not_load_pyarrow(tmp_path: Path) -> None:
    """chDB loads pyarrow when its formats are used. A process of its own, since others have loaded it."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "db")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
