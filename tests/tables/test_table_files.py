"""Exported files: exact in every format, the same types in each file of a table, and described by the documentation."""

import csv
import io
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow as pa
from candlemill.errors import BadInput
from candlemill.tables import files
from candlemill.tables.columns import TABLES, own_columns
from candlemill.tables.table import Kind, Series, Table
from pyarrow import ipc, parquet

ROOT = Path(__file__).parents[2]
INT64 = st.integers(-(2**63), 2**63 - 1)
NEAR_ZERO = st.integers(-120, 120)
ANY_SIZE = st.integers(-(10**37), 10**37) | st.none()


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, list[dict[str, Any]]]:
    """A table of all kinds of columns, and its rows as exact values."""
    n = draw(st.integers(0, 9))
    of = lambda each: draw(st.lists(each, min_size=n, max_size=n))  # noqa: E731
    money, big = of(INT64 | NEAR_ZERO), of(ANY_SIZE)
    count, side, when = of(INT64), of(st.integers(0, 1)), of(st.integers(0, 10**12))
    text = of(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=5))
    table = Table(
        {
            "money": Series(Kind.SCALED, np.array(money, np.int64)),
            "share": Series(Kind.SCALED, np.array(money, np.int64), unit=10**6),
            "big": Series(Kind.SCALED, np.array(big, object)),
            "count": Series(Kind.COUNT, np.array(count, np.int64)),
            "side": Series(Kind.LABEL, np.array(side, np.int8), ("long", "short")),
            "when": Series(Kind.TIME, np.array(when, np.int64)),
            "text": Series(Kind.OBJECT, np.array(text, object)),
        }
    )
    rows = [
        {
            "money": Decimal(money[k]).scaleb(-8),
            "share": Decimal(money[k]).scaleb(-6),
            "big": None if big[k] is None else _scaled(big[k]),
            "count": count[k],
            "side": ("long", "short")[side[k]],
            "when": when[k],
            "text": text[k],
        }
        for k in range(n)
    ]
    return table, rows


def _scaled(value: int) -> Decimal:
    return Decimal((int(value < 0), tuple(map(int, str(abs(value)))), -8))


def _written(table: Table, form: Any, about: dict[str, str]) -> bytes:
    out = io.BytesIO()
    out.close = lambda: None  # type: ignore[method-assign]
    files.write(table, form, out, about)
    return out.getvalue()


@given(tables(), st.integers(1, 4))
def test_every_format_keeps_every_value(made: tuple[Table, list[dict[str, Any]]], at_once: int) -> None:
    table, rows = made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "ROWS_AT_ONCE", at_once)
        read = {
            "parquet": parquet.read_table(io.BytesIO(_written(table, "parquet", {"job_id": "a"}))),
            "arrow": ipc.open_file(_written(table, "arrow", {"job_id": "a"})).read_all(),
        }
        text = _written(table, "csv", {}).decode()
    for found in read.values():
        assert found.schema.metadata[b"candlemill.job_id"] == b"a"
        whole = found.set_column(found.column_names.index("when"), "when", found["when"].cast(pa.int64()))
        assert whole.to_pylist() == rows
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert "E" not in line["money"] + line["big"]
        assert (Decimal(line["money"]), Decimal(line["share"]), int(line["count"])) == (
            row["money"],
            row["share"],
            row["count"],
        )
        assert (line["big"] == "") if row["big"] is None else Decimal(line["big"]) == row["big"]
        assert (line["side"], line["text"]) == (row["side"], row["text"])


def test_a_name_says_the_format_and_a_refused_file_leaves_nothing(tmp_path: Path) -> None:
    table = Table({"money": Series(Kind.SCALED, np.array([1]))})
    for name in ("a.txt", "parquet", "a.csv.gz"):
        with pytest.raises(BadInput, match=r"end it with \.parquet, \.csv, \.arrow"):
            table.write(tmp_path / name)
    with pytest.raises(BadInput, match="there is no folder"):
        table.write(tmp_path / "no" / "a.csv")
    assert not list(tmp_path.iterdir())


def test_the_documentation_has_every_column() -> None:
    text = (ROOT / "docs" / "export.md").read_text()
    output = set(re.findall(r"^\| (?:all|`.*?`) \| `(\w+)` \| ([\w ]*?) ?\| (.*) \|$", text, re.MULTILINE))
    assert {(name, column.unit, column.text) for own in TABLES.values() for name, column in own.items()} == output
    for name in ("trades", "equity", "daily", "orders"):
        assert set(re.findall(rf"^\| `{name}` \| `(\w+)`", text, re.MULTILINE)) == set(own_columns(name))
