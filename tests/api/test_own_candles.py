"""Candles of one's own: exact numbers and moments from every form, and a clear word for what cannot be used."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import candlemill as cm
import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.ingest.convert import scaled_column, utc_ms
from conftest import days
from hypothesis import given

SCALE = 10**8
T0 = 1_704_067_200_000  # 2024-01-01
OHLCV = ("open", "high", "low", "close", "volume")


def columns(n: int = 3000) -> dict[str, Any]:
    """Synthetic candles as floats, and their times in ms."""
    candles = days(5, 0, 3)
    found: dict[str, Any] = {name: candles[name][:n] / SCALE for name in OHLCV}
    return {"time": candles["t"][:n], **found}


def candles() -> cm.Candles:
    candles = days(5, 0, 3)
    return cm.Candles.from_columns({"t": candles["t"][:3000], **{n: candles[n][:3000] for n in OHLCV}}, scaled=True)


# -- numbers -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**62), st.integers(0, 8))
def test_a_decimal_is_the_same_integer_in_every_form(units: int, places: int) -> None:
    """Text, Decimal and, where it can hold it, the float nearest to it."""
    number = Decimal(units // 10**places * 10**places) / SCALE
    wanted = [units // 10**places * 10**places]
    text = format(number, "f")
    assert scaled_column([text], "close", SCALE).tolist() == wanted
    assert scaled_column([number], "close", SCALE).tolist() == wanted
    assert scaled_column([text.encode()], "close", SCALE).tolist() == wanted
    assert scaled_column(np.array(wanted), "close", SCALE, scaled=True).tolist() == wanted
    if Decimal(repr(float(text))) == number:
        assert scaled_column(np.array([float(text)]), "close", SCALE).tolist() == wanted


@given(st.floats(0, 9e10, allow_subnormal=False))
def test_a_float_is_its_shortest_decimal_or_refused(x: float) -> None:
    decimal = Decimal(repr(x)) * SCALE
    if decimal == int(decimal):
        assert scaled_column(np.array([x]), "close", SCALE).tolist() == [int(decimal)]
    else:
        with pytest.raises(cm.BadInput, match="has more than 8 decimals: decimals=8 rounds"):
            scaled_column(np.array([1.5, x]), "close", SCALE)
        assert abs(scaled_column(np.array([x]), "close", SCALE, decimals=8)[0] - decimal) <= max(1, decimal // 2**51)


def test_other_numbers() -> None:
    assert scaled_column(np.array([0.1, 2.5], dtype=np.float32), "close", SCALE).tolist() == [10**7, 25 * 10**7]
    assert scaled_column(np.array([7], dtype=np.uint8), "close", SCALE).tolist() == [7 * SCALE]
    assert scaled_column(["1e-8", " 12.50 "], "close", SCALE).tolist() == [1, 1_250_000_000]
    assert scaled_column(["0.12345678901"], "close", SCALE, decimals=4).tolist() == [12_350_000]
    for wrong, words in (
        ([1.0, np.nan], "close 'nan' of row 1 is not a number"),
        ([1.0, None], "close 'None' of row 1 is not a number"),
        ([1.0, np.inf], "close 'inf' of row 1 is not a number"),
        (["1", "x"], "close 'x' of row 1 is not a number"),
        (["1", "123456789.123456789"], "close 123456789.123456789 of row 1 has more than 8 decimals"),
        ([10**12], "close 1000000000000 of row 0 does not fit 64 bits"),
        ([1e30], "close 1e\\+30 of row 0 does not fit 64 bits"),
        ([[1.0]], "close has 2 dimensions"),
    ):
        with pytest.raises(cm.BadInput, match=words):
            scaled_column(wrong, "close", SCALE)
    with pytest.raises(cm.BadInput, match="scaled already comes as whole numbers"):
        scaled_column([1.5], "close", SCALE, scaled=True)


# -- moments -------------------------------------------------------------------------------------------------------


def test_a_moment_is_the_same_in_every_form() -> None:
    wanted = [T0, T0 + 60_000]
    moments = [dt.datetime.fromtimestamp(t / 1000, dt.UTC) for t in wanted]
    ms = np.array(wanted)
    for given_ in (
        ms,
        ms // 1000,
        ms * 1000,
        ms * 10**6,
        (ms // 1000).astype(float),
        ms.astype("datetime64[ms]"),
        ms.astype("datetime64[ms]").astype("datetime64[ns]"),
        moments,
        [moment.replace(tzinfo=None) for moment in moments],
        [moment.astimezone(dt.timezone(dt.timedelta(hours=9))) for moment in moments],
        [moment.isoformat() for moment in moments],
        ["2024-01-01 00:00", "2024-01-01 00:01:00"],
        ["2024-01-01T01:00:00+01:00", "2023-12-31T23:01:00-01:00"],
    ):
        assert utc_ms(given_).tolist() == wanted, given_
    assert utc_ms(["2024-01-01 01:00"], "Europe/Berlin").tolist() == [T0]
    assert utc_ms(np.array(["2024-06-01T02:00"], dtype="datetime64[m]"), "Europe/Berlin").tolist() == [1717200000000]
    for wrong, tz, words in (
        (["2024-10-27 02:30"], "Europe/Berlin", "comes twice in Europe/Berlin: give the times in UTC"),
        (["2024-03-31 02:30"], "Europe/Berlin", "comes never in Europe/Berlin"),
        (["2024-01-01 01:00"], "Mars/Base", "tz='Mars/Base' is no time zone"),
        (["yesterday"], None, "time 'yesterday' of row 0 is not a moment"),
        (["2024-01-01T00:00Z", "2024-01-01T00:01"], None, "time of row 1 is unzoned, that of row 0 is not"),
        ([17], None, "time 17 of row 0 is neither"),
        (np.array(["2024-01-01", "NaT"], dtype="datetime64[ms]"), None, "time of row 1 is missing"),
        (np.array(["2024-01-01T00:00:00.000001"], dtype="datetime64[us]"), None, "not on a whole minute"),
    ):
        with pytest.raises(cm.BadInput, match=words):
            utc_ms(wrong, tz)


# -- candles ---------------------------------------------------------------------------------------------------------


def test_every_way_in_gives_the_same_candles(tmp_path: Path) -> None:
    pd, pl, pa = pytest.importorskip("pandas"), pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    found, own = columns(), candles()
    frame = pd.DataFrame({name.title(): found[name] for name in OHLCV})
    frame.index = pd.to_datetime(found["time"], unit="ms", utc=True).tz_convert("America/New_York")
    path = tmp_path / "candles.csv"
    frame.reset_index(names="Date").to_csv(path, index=False)
    binance = tmp_path / "binance.csv"
    ended = {"open_time": found["time"], **{name: found[name] for name in OHLCV}, "close_time": found["time"] + 59_999}
    pd.DataFrame(ended).to_csv(binance, header=False, index=False)
    texts = pa.table({"time": found["time"], **{name: [repr(float(x)) for x in found[name]] for name in OHLCV}})
    decimals = texts.set_column(4, "close", texts["close"].cast(pa.decimal128(20, 8)))
    ways = {
        "pandas": cm.Candles.from_pandas(frame),
        "naive pandas": cm.Candles.from_pandas(frame.tz_localize(None), tz="America/New_York"),
        "csv": cm.Candles.from_csv(path),
        "binance": cm.Candles.from_csv(binance),
        "polars": cm.Candles.from_polars(pl.DataFrame(found)),
        "arrow text": cm.Candles.from_arrow(texts),
        "arrow decimal": cm.Candles.from_arrow(decimals),
        "lists": cm.Candles.from_columns({name: list(column) for name, column in found.items()}),
    }
    ways |= {
        "back from pandas": cm.Candles.from_pandas(own.pandas()),
        "back from polars": cm.Candles.from_polars(own.polars()),
        "back from arrow": cm.Candles.from_arrow(own.arrow()),
        "back from NumPy": cm.Candles.from_columns(own.to_numpy()),
        "back from integers": cm.Candles.from_columns(own.to_numpy(exact=True), scaled=True),
        "by Arrow's stream": cm.Candles.from_arrow(own),
    }
    assert {name: one.data_digest for name, one in ways.items()} == dict.fromkeys(ways, own.data_digest)
    assert all(np.array_equal(one.columns[name], own.columns[name]) for one in ways.values() for name in own.columns)


def test_what_is_not_as_it_should_be_is_named() -> None:
    def refused(words: str, **changes: Any) -> None:
        found = {**columns(10), **changes}
        found = {name: column for name, column in found.items() if column is not None}
        with pytest.raises(cm.BadInput, match=words):
            cm.Candles.from_columns(found)

    good = columns(10)
    t, close = good["time"], good["close"]

    def at(column: Any, row: int, value: Any) -> Any:
        changed = column.copy()
        changed[row] = value
        return changed

    refused("row 4, 2024-01-01T00:03.*Z, comes twice: keep one of the two", time=at(t, 4, t[3]))
    refused("row 4, 2024-01-01T00:01.*Z, is before the row above it: sort by time", time=at(t, 4, t[1]))
    refused("row 4, 2024-01-01T00:04:01.*Z, is not on a whole minute: a candle's time is when it opens",
            time=at(t, 4, t[4] + 1000))  # fmt: skip
    refused("no two candles are a minute apart, the nearest are 5", time=t[0] + 5 * (t - t[0]))
    refused("close 'nan' of row 4 is not a number", close=at(close, 4, np.nan))
    refused("has a close of 0 or less", close=at(close, 4, 0.0))
    refused("has its close above its high", close=at(close, 4, 1e6))
    refused("has its close below its low", close=at(close, 4, 1.0))
    refused("has a volume below 0", volume=at(good["volume"], 4, -1.0))
    refused("has a high above 2,882,303,761, the engine's limit", close=at(close, 4, 3e9), high=at(close, 4, 4e9))
    refused("no column 'time' \\(called time, t, timestamp", time=None)
    refused("no column 'low' among time, open, high, close, volume: rename one", low=None)
    refused("columns 'close' and 'Close' mean the same", Close=close)
    refused("different lengths", close=close[1:])
    with pytest.raises(cm.BadInput, match="there is no candle"):
        cm.Candles.from_columns({name: column[:0] for name, column in good.items()})
    with pytest.raises(cm.BadInput, match="symbol 'A,B' is not 1 to 64"):
        cm.Candles.from_columns(good, "A,B")
    with pytest.raises(cm.BadInput, match="volume_scale=7 is not a power of ten"):
        cm.Candles.from_columns(good, volume_scale=7)


def test_nulls_and_files_that_are_none_are_named(tmp_path: Path) -> None:
    pl, pa, pd = pytest.importorskip("polars"), pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    rows = columns(5)
    lists = {name: list(column) for name, column in rows.items()}
    lists["close"][3] = None
    for make, frame in ((cm.Candles.from_polars, pl.DataFrame(lists)), (cm.Candles.from_arrow, pa.table(lists))):
        with pytest.raises(cm.BadInput, match="close of row 3 is missing: fill it or drop the row"):
            make(frame)
    with pytest.raises(cm.BadInput, match="no column 'time'"):
        cm.Candles.from_pandas(pd.DataFrame(rows).drop(columns="time"))
    for text, words in (
        ("time,open,high,low,close\n1,2\n", "f.csv:2: 2 columns, expected 5"),
        ("time,open,high,low,close\n", "there is no candle"),
        ("", "no candle"),
        ("a,b\n1,2\n", "no column 'time'"),
        ("time,open,high,low,close\n2024-01-01 00:00,1,2,x,2\n", "low 'x' of row 0 is not a number"),
    ):
        (tmp_path / "f.csv").write_text(text)
        with pytest.raises(cm.BadInput, match=words):
            cm.Candles.from_csv(tmp_path / "f.csv")
    with pytest.raises(cm.BadInput, match=r"nowhere\.csv: cannot be read: No such file"):
        cm.Candles.from_csv("nowhere.csv")


def test_volume_may_be_missing_until_it_is_read() -> None:
    bare = cm.Candles.from_columns({name: column for name, column in columns().items() if name != "volume"})
    assert bare.candles.columns == ["time", "open", "high", "low", "close"]
    assert len(cm.backtest(bare, "sma_cross").trades) > 0
    with pytest.raises(cm.BadInput, match="OWN has no volume, which this job reads"):
        cm.backtest(bare, "sma_cross", volume_share=1000)
    large = columns() | {"volume": columns()["volume"] * 0 + 10**12}
    with pytest.raises(cm.BadInput, match="does not fit 64 bits"):
        cm.Candles.from_columns(large)
    assert cm.Candles.from_columns(large, volume_scale=100).candles["volume"][0] == 10**12
