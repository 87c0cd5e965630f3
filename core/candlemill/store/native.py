"""ClickHouse's format Native: a block of columns, as the embedded engine reads it fastest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_DICTIONARIES = 1  # version of a LowCardinality column
_OWN_KEYS = 1 << 9  # flag: the keys of the block's dictionary follow


def native_block(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Return columns of equal lengths, which are not empty, as one block.

    A column has texts, booleans or whole numbers; the database converts numbers to the types of its table. Raises
    OverflowError for a number of more than 64 bits.
    """
    count = len(next(iter(columns.values())))
    found = [(name, *_column(values)) for name, values in columns.items()]
    return b"".join(block_of(count, [(name, kind, b"".join(content)) for name, kind, content in found]))


def block_of(rows: int, columns: Sequence[tuple[str, str, bytes]]) -> list[bytes]:
    """Return the pieces of a block of columns, each with its name, its type and its little-endian values."""
    pieces = [_varint(len(columns)) + _varint(rows)]
    for name, kind, content in columns:
        pieces += [text_cell(name) + text_cell(kind), content]
    return pieces


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


def repeated_texts(runs: Sequence[tuple[str, int]]) -> bytes:
    """Return a column of type LowCardinality(String) of texts, each repeated so many times.

    It has a dictionary, of which the first text is a default that ClickHouse expects, and a place in it for each row.
    """
    places = {text: place for place, text in enumerate(dict.fromkeys(text for text, _ in runs), 1)}
    width = 0 if len(places) < 1 << 8 else 1 if len(places) < 1 << 16 else 2  # of a place: 1, 2 or 4 bytes
    kind = np.dtype(("u1", "<u2", "<u4")[width])
    rows = np.repeat(np.array([places[text] for text, _ in runs], dtype=kind), [count for _, count in runs])
    numbers = (_DICTIONARIES, _OWN_KEYS | width, len(places) + 1)
    head = b"".join(number.to_bytes(8, "little") for number in numbers)
    return head + b"".join(map(text_cell, ("", *places))) + len(rows).to_bytes(8, "little") + rows.tobytes()


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; all but the last have the highest bit set."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
