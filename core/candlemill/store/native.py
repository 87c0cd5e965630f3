"""ClickHouse's format Native: a block of columns, as the embedded engine reads it fastest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def native_block(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Return columns of equal lengths, which are not empty, as one block.

    A column has texts, booleans or whole numbers; the database converts numbers to the types of its table. Raises
    OverflowError for a number of more than 64 bits.
    """
    count = len(next(iter(columns.values())))
    found = [(name, *_column(values)) for name, values in columns.items()]
    return block_of(count, [(name, kind, b"".join(content)) for name, kind, content in found])


def block_of(rows: int, columns: Sequence[tuple[str, str, bytes]]) -> bytes:
    """Return a block of columns, each with its name, its type and its little-endian values."""
    parts = [_varint(len(columns)), _varint(rows)]
    for name, kind, content in columns:
        parts += [text_cell(name), text_cell(kind), content]
    return b"".join(parts)


def _column(values: Sequence[Any]) -> tuple[str, list[bytes]]:
    """Return a column's type and its bytes."""
    if isinstance(values[0], str):
        return "String", [text_cell(value) for value in values]
    if isinstance(values[0], bool):
        return "Bool", [bytes(values)]
    signed = max(values) < 1 << 63
    return "Int64" if signed else "UInt64", [np.array(values, dtype="<i8" if signed else "<u8").tobytes()]


def text_cell(value: str) -> bytes:
    """Return a text with its length."""
    encoded = value.encode()
    return _varint(len(encoded)) + encoded


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; all but the last have the highest bit set."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
