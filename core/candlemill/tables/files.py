"""Tables as files: Parquet, Arrow IPC and CSV, with exact decimals. Written in parts, so that memory stays bounded."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Literal

from candlemill.errors import BadInput
from candlemill.tables.columns import column_of
from candlemill.tables.table import Table, package

Format = Literal["parquet", "csv", "arrow"]
MEDIA_TYPES: Mapping[str, Format] = {
    "application/vnd.apache.parquet": "parquet",
    "text/csv": "csv",
    "application/vnd.apache.arrow.file": "arrow",
}
FORMATS: tuple[Format, ...] = ("parquet", "csv", "arrow")
ROWS_AT_ONCE = 100_000
SMALL = 100  # scaled; Arrow writes smaller decimals with an exponent


def format_of(path: Path) -> Format:
    """Return the format that a file's name ends with. Raises BadInput."""
    for one in FORMATS:
        if path.name.endswith(f".{one}"):
            return one
    raise BadInput(f"{path}: the name says the format: end it with {', '.join('.' + one for one in FORMATS)}")


def write_file(table: Table, path: Path, about: Mapping[str, str]) -> None:
    """Write a table to a file, which appears when it is complete. Raises BadInput, OSError."""
    if not path.absolute().parent.is_dir():
        raise BadInput(f"{path}: there is no folder {path.absolute().parent}")
    form = format_of(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            write(table, form, stream, about)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(table: Table, form: Format, stream: IO[bytes], about: Mapping[str, str]) -> None:
    """Write a table to a binary stream. `about` becomes the file's metadata; a CSV has none."""
    pa = package("pyarrow", f"a {form} file", "candlemill[dataframes]")
    schema = _schema(pa, table, about)
    parts = (table.rows(k, k + ROWS_AT_ONCE).arrow(decimals=True) for k in range(0, max(1, len(table)), ROWS_AT_ONCE))
    _WRITERS[form](schema, parts, stream)


def _schema(pa: Any, table: Table, about: Mapping[str, str]) -> Any:
    """Return the schema, with units and meanings of columns."""
    fields = []
    for field in table.rows(0, 0).arrow(decimals=True).schema:
        column = column_of(table.name, field.name, table.series(field.name).shown_as)
        fields.append(field.with_metadata({"unit": column.unit, "description": column.text}))
    return pa.schema(fields, metadata={f"candlemill.{key}": text for key, text in about.items()})


def _parquet(schema: Any, parts: Iterator[Any], stream: IO[bytes]) -> None:
    from pyarrow import parquet

    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(part.cast(schema))


def _arrow(schema: Any, parts: Iterator[Any], stream: IO[bytes]) -> None:
    from pyarrow import ipc

    with closing(ipc.new_file(stream, schema)) as writer:
        for part in parts:
            writer.write_table(part.cast(schema))


def _csv(schema: Any, parts: Iterator[Any], stream: IO[bytes]) -> None:
    import pyarrow as pa
    from pyarrow import csv

    plain = pa.schema([pa.field(f.name, pa.string() if pa.types.is_decimal(f.type) else f.type) for f in schema])
    with csv.CSVWriter(stream, plain) as writer:
        for part in parts:
            columns = [_plain(pa, column.combine_chunks()) for column in part.columns]
            writer.write_table(pa.table(columns, schema=plain))


def _plain(pa: Any, column: Any) -> Any:
    """Return decimals as texts without exponents, which Arrow writes for very small ones."""
    if not pa.types.is_decimal(column.type):
        return column
    from pyarrow import compute

    texts = column.cast(pa.string())
    small = compute.match_substring(texts, "E")
    if not compute.any(small).as_py():
        return texts
    return pa.array([f"{x:f}" if s else t for x, t, s in _rows(column, texts, small)], pa.string())


def _rows(column: Any, texts: Any, small: Any) -> Iterator[tuple[Any, Any, Any]]:
    return zip(column.to_pylist(), texts.to_pylist(), small.to_pylist(), strict=True)


_WRITERS: Mapping[Format, Callable[[Any, Iterator[Any], IO[bytes]], None]] = {
    "parquet": _parquet,
    "csv": _csv,
    "arrow": _arrow,
}
