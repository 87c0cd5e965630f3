"""Exact parser of Binance's kline CSV files into integer columns.

Two implementations with equal results. `_fill` parses rows in the published format fast: eight digits at a time, no
Python object per row. All other rows go to the slow `_exact_row`, which alone decides what is valid and raises the
errors. `_fill` accepts only rows that `_exact_row` accepts, with the same values.

Units: prices are the decimal value times 10^8, volumes times 10^volume_digits, times are UTC milliseconds.
"""

import re
from typing import Final

import numpy as np
from librt.strings import read_i64_le
from librt.vecs import vec
from mypy_extensions import i64
from numpy.typing import NDArray

COLUMNS: Final = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)
PRICE_DIGITS: Final = 8
PRICE_MAX: Final = 2**58
"""Largest scaled price: 2 882 303 761.51711744. A sum of 31 of them still fits a signed 64-bit integer."""

TIME_MS_MIN: Final = 1_230_768_000_000
"""2009-01-01, the year of the first Bitcoin block: no candle is older."""
TIME_MS_END: Final = 4_102_444_800_000
"""2100-01-01. Microseconds of 2009 are much larger, so the magnitude shows the unit."""

_VOLUME_END: Final = 2**64
_MINUTE_MS: Final = 60_000
_SHOWN_BYTES_MAX: Final = 64
_INTEGER_DIGITS_MAX: Final = 40
_BEYOND: Final = 10**_INTEGER_DIGITS_MAX
_SAMPLE_BYTES: Final = 65_536
_ROW_BYTES_MIN: Final = 36  # 13 digits of time, 11 fields of one digit, 11 commas, one newline
_PLAIN: Final = re.compile(rb"[-+._0-9A-Za-z]+")
_NUMBER: Final = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]+))?")

Columns = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]
]


class KlineError(ValueError):
    """Invalid kline file: `line` counts from 1, `reason` names the column, the value and the limit."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


def parse_klines(text: bytes, volume_digits: int) -> Columns:
    """Return `(t_ms, open, high, low, close, volume)` of every row, in file order, including duplicates.

    Valid: a header in line 1, LF or CRLF, a missing last newline, one blank last line.
    Raises KlineError for the first line that cannot be stored exactly, ValueError for `volume_digits` outside 0..8.
    """
    if not 0 <= volume_digits <= PRICE_DIGITS:
        raise ValueError(f"volume_digits is {volume_digits}, expected 0 to {PRICE_DIGITS}")
    if not text:
        raise KlineError(1, "the file is empty")
    columns = _parsed(text, volume_digits, _likely_rows(text))
    if columns is None:
        columns = _parsed(text, volume_digits, min(text.count(b"\n"), len(text) // _ROW_BYTES_MIN) + 1)
    assert columns is not None, "there are no more rows than lines"
    return columns


def _likely_rows(text: bytes) -> int:
    """Return how many rows of `text` to make room for, by the length of its first ones."""
    head = text[:_SAMPLE_BYTES]
    rows = len(text) * (head.count(b"\n") + 1) // len(head)
    return min(rows + rows // 8, len(text) // _ROW_BYTES_MIN) + 1


def _parsed(text: bytes, volume_digits: int, rows_max: i64) -> Columns | None:
    """Return the columns of all rows; None if there are more than `rows_max`."""
    start = _after_header(text)
    header_lines = 1 if start > 0 else 0
    t = vec[i64]([0] * rows_max)
    open_ = vec[i64]([0] * rows_max)
    high = vec[i64]([0] * rows_max)
    low = vec[i64]([0] * rows_max)
    close = vec[i64]([0] * rows_max)
    volume = vec[i64]([0] * rows_max)
    pos: i64 = start
    end: i64 = len(text)
    fast_end: i64 = text.rfind(b"\n", 0, max(0, len(text) - 8)) + 1  # 8-byte reads before it stay inside the text
    row: i64 = 0
    per_unit: i64 = 10**volume_digits
    while True:
        row, pos = _fill(text, pos, fast_end, per_unit, row, t, open_, high, low, close, volume)
        if pos >= end:
            break
        line_end = text.find(b"\n", pos)
        if line_end < 0:
            line_end = len(text)
        line = text[pos:line_end].removesuffix(b"\r")
        if not line and line_end + 1 >= end and row > 0:
            break
        if row >= rows_max:
            return None
        values = _exact_row(line, row + header_lines + 1, volume_digits)
        t[row], open_[row], high[row], low[row], close[row], volume[row] = values
        row += 1
        pos = line_end + 1
    if row == 0:
        raise KlineError(1, "a header and no rows")
    return (
        np.frombuffer(memoryview(t), np.int64)[:row],
        np.frombuffer(memoryview(open_), np.int64)[:row],
        np.frombuffer(memoryview(high), np.int64)[:row],
        np.frombuffer(memoryview(low), np.int64)[:row],
        np.frombuffer(memoryview(close), np.int64)[:row],
        np.frombuffer(memoryview(volume), np.uint64)[:row],
    )


def _after_header(text: bytes) -> int:
    """Return the position of the first row: after line 1 if its first field has no digit, which makes it a header."""
    line_end = text.find(b"\n")
    line = text[:line_end] if line_end >= 0 else text
    line = line.removesuffix(b"\r")
    first = line.split(b",", 1)[0]
    if not first or re.search(rb"[0-9]", first):
        return 0
    _check_width(line, 1)
    return len(text) if line_end < 0 else line_end + 1


# --- exact parser: one row, ordinary Python --------------------------------------------------------------------------


def _exact_row(line: bytes, line_number: int, volume_digits: int) -> tuple[int, int, int, int, int, int]:
    """Return `(t_ms, open, high, low, close, volume)` of any row, the volume as signed 64 bits."""
    _check_width(line, line_number)
    fields = line.split(b",")
    t = _exact_time(fields, line_number)
    open_ = _exact_price(1, fields, line_number)
    high = _exact_price(2, fields, line_number)
    low = _exact_price(3, fields, line_number)
    close = _exact_price(4, fields, line_number)
    volume = _exact_volume(fields, line_number, volume_digits)
    for column in range(6, len(COLUMNS)):
        _number_parts(column, fields, line_number)
    if high < low:
        raise KlineError(line_number, f"high {_show(fields[2])} is below low {_show(fields[3])}")
    for column, price in ((1, open_), (4, close)):
        if price > high:
            raise KlineError(line_number, f"{COLUMNS[column]} {_show(fields[column])} is above high {_show(fields[2])}")
        if price < low:
            raise KlineError(line_number, f"{COLUMNS[column]} {_show(fields[column])} is below low {_show(fields[3])}")
    if volume >= 2**63:
        volume -= 2**64
    return t, open_, high, low, close, volume


def _check_width(line: bytes, line_number: int) -> None:
    """Raise KlineError unless the line has twelve fields."""
    width = line.count(b",") + 1
    if not line:
        raise KlineError(line_number, f"a blank line, expected {len(COLUMNS)} columns")
    if width != len(COLUMNS):
        raise KlineError(line_number, f"{width} columns, expected {len(COLUMNS)}")


def _show(field: bytes) -> str:
    """Return a short printable form of a field for error messages."""
    shown = field[:_SHOWN_BYTES_MAX]
    dots = "..." if len(field) > _SHOWN_BYTES_MAX else ""
    if _PLAIN.fullmatch(shown):
        return shown.decode() + dots
    return repr(shown).removeprefix("b") + dots


def _number_parts(column: int, fields: list[bytes], line_number: int) -> tuple[bytes, bytes]:
    """Return the digits before and after the point of a field. Raises KlineError unless it is a plain number."""
    name = COLUMNS[column]
    field = fields[column]
    match = _NUMBER.fullmatch(field)
    if match is None:
        raise KlineError(line_number, f"{name} {_show(field)} is not a plain decimal number")
    if match[1]:
        raise KlineError(line_number, f"{name} {_show(field)} is negative")
    return match[2], match[3] or b""


def _integer(digits: bytes) -> int:
    """Return the number; for very long text a number above every limit, without the cost of its conversion."""
    significant = digits.lstrip(b"0")
    return int(significant or b"0") if len(significant) <= _INTEGER_DIGITS_MAX else _BEYOND


def _scaled(parts: tuple[bytes, bytes], digits: int) -> int:
    """Return the decimal value times 10^digits, or -1 if it has more decimals than that."""
    whole, fraction = parts
    if fraction[digits:].strip(b"0"):
        return -1
    return _integer(whole + fraction[:digits].ljust(digits, b"0"))


def _exact_time(fields: list[bytes], line_number: int) -> int:
    """Return the open time in milliseconds, from milliseconds or microseconds."""
    field = fields[0]
    whole, fraction = _number_parts(0, fields, line_number)
    if fraction:
        raise KlineError(line_number, f"open_time {_show(field)} is not an integer")
    number = _integer(whole)
    if TIME_MS_MIN <= number < TIME_MS_END:
        unit = 1
    elif TIME_MS_MIN * 1000 <= number < TIME_MS_END * 1000:
        unit = 1000
    else:
        raise KlineError(
            line_number,
            f"open_time {_show(field)} is outside 2009-01-01..2100-01-01 both as milliseconds and as microseconds",
        )
    if number % (_MINUTE_MS * unit):
        raise KlineError(line_number, f"open_time {_show(field)} is not on a minute")
    return number // unit


def _exact_price(column: int, fields: list[bytes], line_number: int) -> int:
    """Return a price times 10^8, within 1..PRICE_MAX."""
    name = COLUMNS[column]
    field = fields[column]
    price = _scaled(_number_parts(column, fields, line_number), PRICE_DIGITS)
    if price < 0:
        raise KlineError(line_number, f"{name} {_show(field)} has more than {PRICE_DIGITS} decimals")
    if price == 0:
        raise KlineError(line_number, f"{name} {_show(field)} is not above 0")
    if price > PRICE_MAX:
        raise KlineError(
            line_number, f"{name} {_show(field)} is above the largest price 2882303761.51711744 (2^58 at 8 decimals)"
        )
    return price


def _exact_volume(fields: list[bytes], line_number: int, digits: int) -> int:
    """Return the volume times 10^digits, below 2^64."""
    field = fields[5]
    volume = _scaled(_number_parts(5, fields, line_number), digits)
    scale = f"(volume_scale 10^{digits})"
    if volume < 0:
        raise KlineError(line_number, f"volume {_show(field)} has more than {digits} decimals {scale}")
    if volume >= _VOLUME_END:
        raise KlineError(line_number, f"volume {_show(field)} does not fit UInt64 at {digits} decimals {scale}")
    return volume


# --- fast parser: published format, 64-bit integers only -------------------------------------------------------------
# Whole parts up to 10^16, at most 8 decimals. All numbers stay below 2^63, so interpreted and compiled code agree.
# A position of -1 means "not recognised". All positions lie at least nine bytes before the end of the text.

_COMMA: Final = 44
_DOT: Final = 46
_ZERO: Final = 48
_NINE: Final = 57
_NEWLINE: Final = 10
_RETURN: Final = 13
_SCALE: Final = 100_000_000
_WHOLE_MAX: Final = 10**16
_PRICE_WHOLE_MAX: Final = PRICE_MAX // _SCALE - 1
_LOW_NIBBLES: Final = 0x0F0F0F0F0F0F0F0F
_ZEROS: Final = 0x3030303030303030
_SIXES: Final = 0x0606060606060606


def _eight_digits(word: i64) -> i64:
    """Return the number of eight ASCII digits in a little-endian word; -1 if not all are digits.

    XOR with `00000000` clears a digit's high nibble, which stays 0 after adding 6. Digits are then combined into
    pairs, fours and eights, in lanes that are wide enough for the largest value.
    """
    ones = word ^ _ZEROS
    if ((ones | (ones + _SIXES)) >> 4) & _LOW_NIBBLES != 0:
        return -1
    pairs = ones * 10 + (ones >> 8)
    fours = (pairs & 0x00FF00FF00FF00FF) * 100 + ((pairs >> 16) & 0x00FF00FF00FF00FF)
    return (fours & 0xFFFF) * 10_000 + ((fours >> 32) & 0xFFFF)


def _decimal(data: bytes, pos: i64) -> tuple[i64, i64, i64]:
    """Return (whole part, eight decimals, position after the comma) of the field at `pos`."""
    whole: i64 = 0
    start = pos
    while True:
        byte: i64 = data[pos]
        digit = byte - _ZERO
        if digit < 0 or digit > 9:
            break
        whole = whole * 10 + digit
        if whole > _WHOLE_MAX:
            return 0, 0, -1
        pos += 1
    if pos == start:
        return 0, 0, -1
    fraction: i64 = 0
    if data[pos] == _DOT:
        pos += 1
        fraction = _eight_digits(read_i64_le(data, pos))
        if fraction >= 0:
            pos += 8
        else:
            fraction = 0
            unit: i64 = _SCALE
            while True:
                byte = data[pos]
                digit = byte - _ZERO
                if digit < 0 or digit > 9:
                    break
                fraction = fraction * 10 + digit
                unit //= 10
                pos += 1
            if unit == _SCALE:
                return 0, 0, -1
            fraction *= unit
    if data[pos] != _COMMA:
        return 0, 0, -1
    return whole, fraction, pos + 1


def _skip_digits(data: bytes, pos: i64) -> i64:
    """Return the position after the digits at `pos`, or `pos` if there are none."""
    if _eight_digits(read_i64_le(data, pos)) >= 0:
        pos += 8
    while True:
        byte: i64 = data[pos]
        if byte < _ZERO or byte > _NINE:
            return pos
        pos += 1


def _skip_number(data: bytes, pos: i64) -> i64:
    """Return the position after the plain decimal number at `pos`, or -1."""
    point = _skip_digits(data, pos)
    if point == pos:
        return -1
    if data[point] != _DOT:
        return point
    pos = _skip_digits(data, point + 1)
    if pos == point + 1:
        return -1
    return pos


def _time(data: bytes, pos: i64) -> tuple[i64, i64]:
    """Return (milliseconds, position after the comma) of the time at `pos`."""
    value = _eight_digits(read_i64_le(data, pos))
    if value < 0:
        return 0, -1
    pos += 8
    while True:
        byte: i64 = data[pos]
        digit = byte - _ZERO
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        if value > _WHOLE_MAX:
            return 0, -1
        pos += 1
    if value >= TIME_MS_END:
        if value % 1000 != 0:
            return 0, -1
        value //= 1000
    if value < TIME_MS_MIN or value >= TIME_MS_END or value % _MINUTE_MS != 0 or data[pos] != _COMMA:
        return 0, -1
    return value, pos + 1


def _price(data: bytes, pos: i64) -> tuple[i64, i64]:
    """Return (price times 10^8, position after the comma) of the price at `pos`."""
    whole, fraction, pos = _decimal(data, pos)
    if whole > _PRICE_WHOLE_MAX:
        return 0, -1
    return whole * _SCALE + fraction, pos


def _row_end(data: bytes, pos: i64) -> i64:
    """Return the position after the six last columns and the newline of a row."""
    commas: i64 = 5
    while commas > 0:
        pos = _skip_number(data, pos)
        if pos < 0 or data[pos] != _COMMA:
            return -1
        pos += 1
        commas -= 1
    pos = _skip_number(data, pos)
    if pos < 0:
        return -1
    if data[pos] == _RETURN:
        pos += 1
    if data[pos] != _NEWLINE:
        return -1
    return pos + 1


def _fill(
    data: bytes,
    pos: i64,
    end: i64,
    per_unit: i64,
    row: i64,
    t: vec[i64],
    open_: vec[i64],
    high: vec[i64],
    low: vec[i64],
    close: vec[i64],
    volume: vec[i64],
) -> tuple[i64, i64]:
    """Read rows from `pos` on into the columns from `row` on, as long as there is room; return (next row, position of
    the first row not read)."""
    dropped = _SCALE // per_unit
    whole_max = (1 << 62) // per_unit
    next_pos: i64 = pos
    rows_max: i64 = len(t)
    while pos < end and row < rows_max:
        time, next_pos = _time(data, pos)
        if next_pos < 0:
            break
        first, next_pos = _price(data, next_pos)
        if next_pos < 0:
            break
        top, next_pos = _price(data, next_pos)
        if next_pos < 0:
            break
        bottom, next_pos = _price(data, next_pos)
        if next_pos < 0:
            break
        last, next_pos = _price(data, next_pos)
        if next_pos < 0:
            break
        if bottom <= 0 or first > top or first < bottom or last > top or last < bottom:
            break
        whole, fraction, next_pos = _decimal(data, next_pos)
        if next_pos < 0 or whole >= whole_max or fraction % dropped != 0:
            break
        next_pos = _row_end(data, next_pos)
        if next_pos < 0:
            break
        t[row] = time
        open_[row] = first
        high[row] = top
        low[row] = bottom
        close[row] = last
        volume[row] = whole * per_unit + fraction // dropped
        row += 1
        pos = next_pos
    return row, pos
