"""The kline parser against an independent one with Decimal; every error with its line and reason."""

import pickle
import re
import zipfile
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from candlemill.exchanges.binance.kline_csv import COLUMNS, KlineError, parse_klines
from hypothesis import example, given, settings
from hypothesis import strategies as st

DATA = Path(__file__).parents[2].parent / "shared" / "data"
MINUTE = 60_000
ROW = "1619827200000,57697.25,57697.26,57533.75,57545.06,106.991943,1619827259999,0,0,0,0,0"
PUBLISHED = (
    "1577836800000,7195.24000000,7196.25000000,7183.14000000,7186.68000000,51.64281200,"
    "1577836859999,371233.51835535,493,19.59823000,140888.41428273,0"
)
FEWER_DECIMALS = "1782864000000000,6.5340,6.5430,6.5340,6.5400,33013,1782864059999999,215829.8910,365,30518,199515.0,0"
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)

Row = tuple[int, int, int, int, int, int]


def rows_of(text: bytes, volume_digits: int = 8) -> list[Row]:
    columns = parse_klines(text, volume_digits)
    assert [column.dtype for column in columns] == [np.int64] * 5 + [np.uint64]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def refusal_of(text: bytes, volume_digits: int = 8) -> tuple[int, str]:
    with pytest.raises(KlineError) as caught:
        parse_klines(text, volume_digits)
    error = caught.value
    assert str(error) == f"line {error.line}: {error.reason}"
    assert error.reason.isprintable() and len(error.reason) < 500
    return error.line, error.reason


def with_field(name: str, value: str, row: str = ROW) -> str:
    fields = row.split(",")
    fields[COLUMNS.index(name)] = value
    return ",".join(fields)


# --- the reference ----------------------------------------------------------------------------------------------------


class Refused(Exception):
    """The reference parser rejects the line number in the argument."""


def reference(text: bytes, volume_digits: int) -> list[Row]:
    """Parse line by line with Decimal, independently of the tested code."""
    lines = text.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    elif lines[-1] == b"\r" and len(lines) > 1:
        lines[-1] = b""
    rows: list[Row] = []
    for number, raw in enumerate(lines, 1):
        line = raw[:-1] if raw.endswith(b"\r") else raw
        if number > 1 and number == len(lines) and line == b"" and rows:
            break
        fields = line.split(b",")
        if len(fields) != 12:
            raise Refused(number)
        if number == 1 and fields[0] and not any(48 <= c <= 57 for c in fields[0]):
            continue
        if not all(re.fullmatch(rb"[0-9]+(\.[0-9]+)?", field) for field in fields):
            raise Refused(number)
        with localcontext(prec=400):
            rows.append(reference_row([field.decode() for field in fields], volume_digits, number))
    if not rows:
        raise Refused(1)
    return rows


def reference_row(fields: list[str], volume_digits: int, number: int) -> Row:
    t, *prices = (Decimal(field) for field in fields[:5])
    if t >= 1230768000000000:
        t /= 1000
    scaled = [price * 10**8 for price in prices]
    volume = Decimal(fields[5]) * 10**volume_digits
    opened, high, low, closed = scaled
    good = (
        "." not in fields[0]
        and 1230768000000 <= t < 4102444800000
        and t % MINUTE == 0
        and all(value == int(value) for value in (*scaled, volume))
        and all(0 < price <= 2**58 for price in scaled)
        and low <= min(opened, closed)
        and high >= max(opened, closed)
        and volume < 2**64
    )
    if not good:
        raise Refused(number)
    return int(t), int(opened), int(high), int(low), int(closed), int(volume)


def check_against_reference(text: bytes, volume_digits: int) -> None:
    """Check for equal rows, or an error in the same line."""
    try:
        expected = reference(text, volume_digits)
    except Refused as refused:
        assert refusal_of(text, volume_digits)[0] == refused.args[0]
    else:
        assert rows_of(text, volume_digits) == expected


# --- valid text -------------------------------------------------------------------------------------------------------


def decimal_text(scaled: int, digits: int, extra_zeros: int, strip: bool) -> str:
    """Format an integer times 10^-digits, with extra zeros or without trailing zeros."""
    whole, fraction = divmod(scaled, 10**digits)
    decimals = (f"{fraction:0{digits}d}" if digits else "") + "0" * extra_zeros
    if strip:
        decimals = decimals.rstrip("0")
    return f"{whole}.{decimals}" if decimals else str(whole)


prices = st.one_of(st.integers(1, 2**58), st.integers(1, 10**6), st.integers(1, 10**4).map(lambda p: p * 10**8))
plain_numbers = st.from_regex(r"[0-9]{1,20}(\.[0-9]{1,12})?", fullmatch=True)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, int, list[Row]]:
    """Draw (text, volume_digits, rows)."""
    digits = draw(st.integers(0, 8))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    lines, rows = [], []
    for _ in range(draw(st.integers(1, 6))):
        ordered = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
        low, first, last, high = ordered
        opened, closed = draw(st.permutations([first, last]))
        t = draw(st.integers(1230768000000 // MINUTE, 4102444800000 // MINUTE - 1)) * MINUTE
        volume = draw(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 10**12)))
        rows.append((t, opened, high, low, closed, volume))
        zeros, strip = draw(st.integers(0, 3)), draw(st.booleans())
        fields = [str(t * draw(st.sampled_from([1, 1000])))]
        fields += [decimal_text(price, 8, zeros, strip) for price in (opened, high, low, closed)]
        fields += [decimal_text(volume, digits, zeros, strip), *(draw(plain_numbers) for _ in range(6))]
        lines.append(",".join(fields))
    if draw(st.booleans()):
        lines.insert(0, HEADER)
    end = draw(st.sampled_from(["", newline, newline * 2]))
    return (newline.join(lines) + end).encode(), digits, rows


@given(files())
def test_any_valid_rows_round_trip(drawn: tuple[bytes, int, list[Row]]) -> None:
    text, digits, rows = drawn
    assert rows_of(text, digits) == rows
    assert reference(text, digits) == rows


def test_a_published_row() -> None:
    row = (1577836800000, 719524000000, 719625000000, 718314000000, 718668000000, 5164281200)
    assert rows_of((PUBLISHED + "\n").encode() * 3) == [row] * 3


def test_microseconds_become_milliseconds() -> None:
    text = ROW.replace("1619827200000", "1619827200000000").encode()
    assert rows_of(text)[0][0] == 1619827200000
    assert rows_of(text + b"\n" + ROW.encode())[1][0] == 1619827200000


def test_limits_are_inclusive() -> None:
    top = "2882303761.51711744"
    fields = ["1230768000000", top, top, top, top, "184467440737.09551615", "0", "0", "0", "0", "0", "0"]
    first = (1230768000000, 2**58, 2**58, 2**58, 2**58, 2**64 - 1)
    fields_last = ["4102444740000000", *["0.00000001"] * 4, *["0"] * 7]
    last = (4102444740000, 1, 1, 1, 1, 0)
    for order in (1, -1):
        text = "\n".join([",".join(fields), ",".join(fields_last)][::order])
        assert rows_of(text.encode()) == [first, last][::order]
        assert rows_of(text.encode() + b"\n" + ROW.encode())[:2] == [first, last][::order]


@pytest.mark.parametrize("volume", [2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_volumes_around_the_signed_limits(volume: int) -> None:
    for digits in range(9):
        row = with_field("volume", decimal_text(volume, digits, 0, False))
        assert [row[5] for row in rows_of(f"{row}\n{ROW}".encode().replace(b"106.991943", b"106"), digits)] == [
            volume,
            106 * 10**digits,
        ]


def test_the_largest_real_volume_fits_only_two_decimals() -> None:
    row = with_field("volume", "448145609988.00000000")
    assert rows_of(row.encode(), 2)[0][5] == 44814560998800
    line, reason = refusal_of((ROW + "\n" + row + "\n" + ROW).encode(), 8)
    assert (line, reason) == (
        2,
        "volume 448145609988.00000000 does not fit UInt64 at 8 decimals (volume_scale 10^8)",
    )


@pytest.mark.parametrize("last", ["", "x\n", "1,2\n\n", f"{ROW}\n"])
def test_rows_that_become_shorter(last: str) -> None:
    """Room is made by the length of the first rows: of shorter ones after them there are more than expected."""
    wide, short = with_field("quote_volume", "1" * 200), "1619827200000,2,3,1,2,5,0,0,0,0,0,0"
    text = (f"{wide}\n" * 400 + f"{short}\n" * 9_000 + last).encode()
    try:
        expected = reference(text, 8)
    except Refused as refused:
        assert refusal_of(text)[0] == refused.args[0] == 9_401
    else:
        assert rows_of(text) == expected and len(expected) == 9_400 + (last != "")


def test_columns_stay_valid_after_garbage_collection() -> None:
    close = parse_klines((ROW + "\n").encode() * 5000, 8)[4]
    junk = [bytearray(2**16) for _ in range(100)]
    assert (close == 5754506000000).all() and junk


# --- errors -----------------------------------------------------------------------------------------------------------

FIELD_REFUSALS = [
    ("open_time", "1619827200001", "open_time 1619827200001 is not on a minute"),
    ("open_time", "1619827200000001", "open_time 1619827200000001 is not on a minute"),
    ("open_time", "1619827201000", "open_time 1619827201000 is not on a minute"),
    ("open_time", "1619827200000.0", "open_time 1619827200000.0 is not an integer"),
    ("open_time", "1619827200", "open_time 1619827200 is outside 2009-01-01..2100-01-01 both as milli"),
    ("open_time", "1230767940000", "open_time 1230767940000 is outside"),
    ("open_time", "4102444800000", "open_time 4102444800000 is outside"),
    ("open_time", "4102444800000000", "open_time 4102444800000000 is outside"),
    ("open_time", "9" * 5000, "is outside"),
    ("open_time", "", "open_time '' is not a plain decimal number"),
    ("open", "0", "open 0 is not above 0"),
    ("low", "0.00000000", "low 0.00000000 is not above 0"),
    ("close", "-1.5", "close -1.5 is negative"),
    ("open", "57697.250000001", "open 57697.250000001 has more than 8 decimals"),
    ("high", "2882303761.51711745", "high 2882303761.51711745 is above the largest price 2882303761.51711744"),
    ("high", "1" * 5000, "is above the largest price"),
    ("high", "5.7e4", "high 5.7e4 is not a plain decimal number"),
    ("high", "NaN", "high NaN is not a plain decimal number"),
    ("high", "57698.", "high 57698. is not a plain"),
    ("low", ".5", "low .5 is not a plain"),
    ("volume", "7.", "volume 7. is not a plain"),
    ("open", str(2**64 + 57600), "open 18446744073709609216 is above the largest price"),
    ("volume", str(2**64), "volume 18446744073709551616 does not fit UInt64 at 8 decimals"),
    ("high", "1.2.3", "high 1.2.3 is not a plain"),
    ("high", "+5", "high +5 is not a plain"),
    ("high", " 5", "high ' 5' is not a plain"),
    ("high", "\u0665", r"high '\xd9\xa5' is not a plain"),
    ("high", "57000", "high 57000 is below low 57533.75"),
    ("open", "57697.27", "open 57697.27 is above high 57697.26"),
    ("open", "57533.74", "open 57533.74 is below low 57533.75"),
    ("close", "57697.27", "close 57697.27 is above high 57697.26"),
    ("close", "57533.74", "close 57533.74 is below low 57533.75"),
    ("volume", "-1", "volume -1 is negative"),
    ("volume", "1.000000001", "volume 1.000000001 has more than 8 decimals (volume_scale 10^8)"),
    ("volume", "184467440737.09551616", "volume 184467440737.09551616 does not fit UInt64 at 8 decimals"),
    *((name, "x1", f"{name} x1 is not a plain decimal number") for name in COLUMNS[1:]),
    *((name, "-1", f"{name} -1 is negative") for name in COLUMNS[1:]),
]


@pytest.mark.parametrize(("name", "value", "reason"), FIELD_REFUSALS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_errors_name_the_field_and_its_line(name: str, value: str, reason: str, newline: str) -> None:
    for before, after in ((0, 0), (0, 1), (1, 3), (2, 0)):
        lines = [ROW] * before + [with_field(name, value)] + [ROW] * after
        for first in ([], [HEADER]):
            line, message = refusal_of(newline.join(first + lines).encode())
            assert line == len(first) + before + 1
            assert reason in message


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "the file is empty"),
        ("\n", 1, "a blank line, expected 12 columns"),
        (HEADER, 1, "a header and no rows"),
        (HEADER + "\n", 1, "a header and no rows"),
        ("open_time,open\n" + ROW, 1, "2 columns, expected 12"),
        ("<html>\n", 1, "1 columns, expected 12"),
        (ROW + ",0", 1, "13 columns, expected 12"),
        (ROW + "\n" + ROW[:-2], 2, "11 columns, expected 12"),
        (ROW + "\n\n" + ROW, 2, "a blank line, expected 12 columns"),
        (ROW + "\n\n\n", 2, "a blank line, expected 12 columns"),
        (ROW + "\n" + HEADER, 2, "open_time open_time is not a plain decimal number"),
        ("\ufeff" + ROW, 1, "open_time '\\xef\\xbb\\xbf1619827200000' is not a plain decimal number"),
        (ROW + "\r" + ROW, 1, "23 columns, expected 12"),
        (ROW + "\r\r\n", 1, "ignore '0\\r' is not a plain decimal number"),
        (ROW + "\n" + ROW[:60], 2, "6 columns, expected 12"),
    ],
)
def test_invalid_files(text: str, line: int, reason: str) -> None:
    assert refusal_of(text.encode()) == (line, reason)


def test_more_decimals_than_the_volume_scale() -> None:
    assert rows_of(with_field("volume", "7.2500").encode(), 2)[0][5] == 725
    assert rows_of(with_field("volume", "7.0000000000").encode(), 0)[0][5] == 7
    line, reason = refusal_of(with_field("volume", "7.251").encode(), 2)
    assert (line, reason) == (1, "volume 7.251 has more than 2 decimals (volume_scale 10^2)")


@pytest.mark.parametrize("digits", [-1, 9])
def test_a_volume_scale_out_of_range(digits: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 8"):
        parse_klines(ROW.encode(), digits)


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(KlineError(3, "why")))
    assert (error.line, error.reason, str(error)) == (3, "why", "line 3: why")


# --- hostile text -----------------------------------------------------------------------------------------------------


damages = st.one_of(
    st.sampled_from([b"", b"0", b"9", b".", b",", b"\n", b"\r", b"\r\n", b"-", b":", b"/", b"\xff", b"00000000"]),
    st.binary(max_size=3),
)


@given(st.binary(max_size=300), st.integers(0, 8))
@example(b"1" * 300, 8)
@example(b"," * 11, 0)
def test_arbitrary_bytes_are_parsed_or_rejected(text: bytes, digits: int) -> None:
    check_against_reference(text, digits)


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from([ROW, PUBLISHED, HEADER, FEWER_DECIMALS]), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from([0, 1, 2, 40]), damages), min_size=1, max_size=3),
    st.sampled_from([8, 5, 0]),
)
def test_damaged_files_give_the_same_result_as_the_reference(
    lines: list[str], damage: list[tuple[int, int, bytes]], digits: int
) -> None:
    text = bytearray("\n".join([*lines, ROW, ROW]).encode())
    for place, removed, added in damage:
        start = place % (len(text) + 1)
        text[start : start + removed] = added
    check_against_reference(bytes(text), digits)


@pytest.mark.parametrize("byte", [c for c in range(256) if not 48 <= c <= 57])
def test_only_digits_are_accepted_as_digits(byte: int) -> None:
    """Every position of every field, in a row of the fast parser."""
    row = PUBLISHED.encode()
    for place in (0, 3, 7, 8, 12, 13, 14, 18, 20, 26, 74, 76, 81, 82, 88, 95, 100, 114, 117, 120, len(row) - 1):
        damaged = row[:place] + bytes([byte]) + row[place + 1 :]
        check_against_reference(damaged + b"\n" + row, 8)


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["official-daily/BTCUSDT-1m-2020-01-01", "spot/BTCUSDT-1m-2025-10"])
def test_real_files_agree_with_the_reference(name: str) -> None:
    path = DATA / f"{name}.zip"
    if not path.exists():
        pytest.skip(f"no real market data: {path} is absent")
    with zipfile.ZipFile(path) as archive:
        text = archive.read(archive.namelist()[0])
    assert rows_of(text) == reference(text, 8)
