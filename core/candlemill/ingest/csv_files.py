"""Reader of candles in CSV files."""

import csv
from os import PathLike, fspath
from pathlib import Path

from candlemill.errors import BadFile


def read_csv(path: str | PathLike[str]) -> tuple[list[str], list[list[str]]]:
    """Return the header (empty if the first line is numbers) and the columns, as text. Raises BadFile."""
    name = fspath(path)
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except OSError as error:
        raise BadFile(name, None, f"cannot be read: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadFile(name, None, f"not a CSV: {error}") from None
    header = [] if not lines or lines[0][0].strip().isdecimal() else [text.strip() for text in lines.pop(0)]
    width = len(header) or (len(lines[0]) if lines else 0)
    for k, line in enumerate(lines):
        if len(line) != width:
            raise BadFile(name, k + 1 + bool(header), f"{len(line)} columns, expected {width}")
    return header, [list(column) for column in zip(*lines, strict=True)] or [[] for _ in header]
