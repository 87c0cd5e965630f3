"""What people may write, what is made of it, and what is refused: with the value, the limit and the way out."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from candlemill.backtests.grid import SETS_LIMIT, grid_points, parse_grid
from candlemill.backtests.identity import job_id
from candlemill.backtests.options import parse_leverage
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import CASH_RULES, OPTIONS, Leg, Spec, spec_from_json
from candlemill.backtests.tiers import Tier, TierTable
from candlemill.errors import BadInput, UnknownName
from candlemill.units import SCALE, iso, parse_decimal, parse_range, parse_timeframe
from hypothesis import given
from hypothesis import strategies as st

MINUTE = 60_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2023", "2023-01-01", "2024-01-01"),
        ("2023-05", "2023-05-01", "2023-06-01"),
        ("2023-12", "2023-12-01", "2024-01-01"),
        ("2024-02", "2024-02-01", "2024-03-01"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("2023-12-31", "2023-12-31", "2024-01-01"),
        ("2023-01-01..2023-06-30", "2023-01-01", "2023-07-01"),
        ("2022..2023", "2022-01-01", "2024-01-01"),
        ("2022-11..2023-02-03", "2022-11-01", "2023-02-04"),
        ("2023..2023", "2023-01-01", "2024-01-01"),
        ("2023-05-07T12:30", "2023-05-07T12:30", "2023-05-07T12:31"),
        ("2023-05-07 12:30:00Z..2023-05-07T12:59Z", "2023-05-07T12:30", "2023-05-07T13:00"),
        ("2023-05-07T12:30..2023-05", "2023-05-07T12:30", "2023-06-01"),
        ("2023-05-06T23:59..2023-05-07T00:00", "2023-05-06T23:59", "2023-05-07T00:01"),
        ("2009..2099", "2009-01-01", "2100-01-01"),
    ],
)
def test_range_ends_are_inclusive_years_months_days_and_minutes(text: str, start: str, end: str) -> None:
    assert parse_range(text) == (ms(start), ms(end))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2023-06..2023-05", "reversed"),
        ("2023-05-07T12:30..2023-05-07T12:29", "reversed"),
        ("2024..2023-12-31T23:59", "reversed"),
        ("2023-02-29", "day is out of range"),
        ("2100-02-29", "year 2100 is not between 2009 and 2099"),
        ("2023-13", "month must be in 1..12"),
        ("2023-05-07T24:00", "hour must be in 0..23"),
        ("2023-05T12:30", "full date"),
        ("2008", "2008 is not between"),
        ("0000", "0 is not between"),
        ("9999", "9999 is not between"),
        ("2023..9999-12-31", "9999 is not between"),
        *((nonsense, "is not like 2023") for nonsense in (
            "", "..", "2023..", "..2023", "last year", "2023-5", "23", "2023-05-07T12:30:30", "2023...2024", "-2023",
            "2023-01-01..2023-02-01..2023-03-01", "all..2023", "2023\n2024",
        )),
    ],
)  # fmt: skip
def test_a_range_that_cannot_be_meant_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_range(text)
    assert reason in str(caught.value) and repr(text) in str(caught.value)


@given(st.datetimes(datetime(2009, 1, 1), datetime(2099, 12, 31)), st.integers(0, 10**6))
def test_any_two_minutes_are_a_range_that_holds_both(moment: datetime, more: int) -> None:
    first = int(moment.replace(second=0, microsecond=0, tzinfo=UTC).timestamp()) * 1000
    last = min(first + more * MINUTE, ms("2099-12-31T23:59"))
    assert parse_range(f"{iso(first)}..{iso(last)}") == (first, last + MINUTE)


# --- timeframes and decimals ------------------------------------------------------------------------------------------


def test_timeframes_are_minutes_up_to_a_week() -> None:
    texts = {"1m": 1, "5m": 5, "90m": 90, "1h": 60, "4h": 240, "1d": 1440, "7d": 10_080, "1w": 10_080}
    assert {text: parse_timeframe(text) for text in texts} == texts


@pytest.mark.parametrize("text", ["", "m", "0m", "5", "5s", "2w", "10081m", "1M", "-1m", "1.5h", "1h30m", "99999d"])
def test_other_timeframes_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="between 1m and 1w"):
        parse_timeframe(text)


@given(st.integers(1, 2**62))
def test_a_decimal_is_read_to_the_last_digit(scaled: int) -> None:
    text = f"{scaled // SCALE}.{scaled % SCALE:08d}"
    assert parse_decimal(text, "quantity") == parse_decimal(text + "000", "quantity") == scaled
    assert parse_decimal(text.rstrip("0"), "quantity") == scaled


@given(st.decimals(0, 10**11, allow_nan=False, places=12))
def test_more_than_eight_decimals_are_refused_never_rounded(value: Decimal) -> None:
    text = f"{value:f}"
    scaled = value * SCALE
    if scaled == int(scaled) and 1 <= scaled <= 2**62:
        assert parse_decimal(text, "quantity") == scaled
    else:
        with pytest.raises(BadInput):
            parse_decimal(text, "quantity")


@pytest.mark.parametrize(
    "text",
    [
        "0", "0.000000001", "1.000000001", "1." + "0" * 40 + "1", "-1", "+1", "46116860184.27387905", "1e3",
        "1e999999999", "inf", "nan", "NaN", "", ".", ".5", "1_000", "1,5", " 1", "1\n", "٣", "9" * 400, "0x10",
    ],
)  # fmt: skip
def test_other_quantities_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="quantity"):
        parse_decimal(text, "quantity")


# --- grids ------------------------------------------------------------------------------------------------------------


def test_grids_are_spans_with_their_end_and_lists() -> None:
    assert parse_grid(["fast=5:20:5", "slow=20, 50,100", "exit=3:5", "x=7:9:5"]) == {
        "fast": [5, 10, 15, 20], "slow": ["20", "50", "100"], "exit": [3, 4, 5], "x": [7],
    }  # fmt: skip
    assert parse_grid(["threshold=5"]) == {"threshold": ["5"]}


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["fast"], "is not like fast=5:50:5"),
        (["fast="], "is not like fast=5:50:5"),
        (["=5"], "is not like fast=5:50:5"),
        (["fast=5,,6"], "empty value"),
        (["fast=1", "fast=2"], "twice"),
        (["fast=5:1"], "START <= END"),
        (["fast=1:5:0"], "a STEP above 0"),
        (["fast=1:5:-1"], "a STEP above 0"),
        (["fast=1:5:1:1"], "a span is START:END"),
        (["fast=a:b"], "a span is START:END"),
        (["fast=1.5:2"], "a span is START:END"),
        ([f"fast=1:{SETS_LIMIT + 1}"], "limit is 1,000,000"),
        (["fast=1:999999999999999999"], "limit is 1,000,000"),
    ],
)
def test_other_grids_are_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        parse_grid(texts)


# --- specs ------------------------------------------------------------------------------------------------------------

MARCH = parse_range("2023-03")


def spec(**more: Any) -> Spec:
    return resolve(**{"symbol": "XUSDT", "strategy": "sma_cross", "span": MARCH, "params": {}} | more)


def test_defaults_are_filled_in_and_texts_typed() -> None:
    found = spec(params={"fast": "7", "allow_short": "true"})
    assert found.params == {"fast": 7, "slow": 50, "allow_short": True}
    assert [type(value) for value in found.params.values()] == [int, int, bool]
    assert (found.fee, found.slippage, found.quantity, found.timeframe, found.fill) == (1000, 0, SCALE, 1, "next_open")
    assert spec(strategy="momentum_v1").params == {"lookback": 1440, "threshold": 0, "allow_short": False}
    assert spec(strategy="donchian").params == {"entry": 480, "exit": 240}
    assert spec(strategy="buy_and_hold").params == {}


def test_a_grid_is_typed_cleared_of_repetitions_and_leaves_out_what_the_strategy_refuses() -> None:
    found = spec(grid={"slow": ["20", 20, "5"], "fast": [5, 10]}, params={"allow_short": "false"})
    assert (found.grid, found.params) == ({"slow": [20, 5], "fast": [5, 10]}, {"allow_short": False})
    points = list(grid_points(found, 0, found.combinations))
    assert [params for _, params, _ in points] == [
        {"fast": fast, "slow": 20, "allow_short": False} for fast in (5, 10)
    ]  # fmt: skip
    assert spec(grid={"allow_short": ["true", "false", "1"]}).grid == {"allow_short": [True, False]}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"strategy": "smacross"}, "unknown strategy 'smacross': did you mean 'sma_cross'?"),
        ({"params": {"fats": 3}}, "did you mean 'fast'? it takes fast, slow, allow_short"),
        ({"grid": {"solw": ["3"]}}, "did you mean 'slow'?"),
        ({"strategy": "buy_and_hold", "params": {"fast": 3}}, "it takes no parameters"),
        ({"params": {"fast": "60"}}, "fast=60 must be less than slow=50"),
        ({"params": {"fast": "50"}}, "fast=50 must be less than slow=50"),
        ({"params": {"fast": "0"}}, "sma_cross: fast='0': expected int >= 1"),
        ({"params": {"slow": 1_000_001}}, "slow=1000001: expected int <= 1000000"),
        ({"params": {"fast": "ten"}}, "fast='ten': expected int"),
        ({"params": {"fast": "1.5"}}, "fast='1.5': expected int"),
        ({"params": {"allow_short": "maybe"}}, "allow_short='maybe': expected bool"),
        ({"grid": {"fast": ["5", "x"]}}, "fast='x': expected int"),
        ({"grid": {"fast": [60, 70]}}, "fast=60 must be less than slow=50"),
        ({"grid": {"fast": [1]}, "params": {"fast": 2}}, "'fast' is given both as a value and as a grid"),
        ({"grid": {"fast": list(range(1, 1002)), "slow": list(range(1, 1002))}}, "1,002,001 points, the limit is"),
        ({"grid": {"fast": list(range(1, 8_000))}}, "more than 32,768 bytes: use several sweeps"),
        ({"fee": -100_001}, "fee=-10.0001%: give at least -10%"),
        ({"fee": 1_000_001}, "fee=100.0001%: give at most 100%"),
        ({"stop_loss": 10**30}, f"stop_loss={10**26:,}%: give at most 100%"),
        ({"take_profit": 100_000_001}, "take_profit=10,000.0001%: give at most 10,000%"),
        ({"timeframe": 0}, "timeframe=0: expected int >= 1"),
        ({"symbol": ""}, "symbol='': expected str of length >= 1"),
        ({"fill": "never"}, "fill"),
        ({"colour": "red"}, "colour"),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        spec(**more)
    assert message in str(caught.value)
    assert isinstance(caught.value, UnknownName) == str(caught.value).startswith("unknown")


def test_canonical_bytes_do_not_depend_on_the_order_of_keys() -> None:
    one = spec(params={"allow_short": True}, grid={"fast": [1, 2], "slow": [10, 20]}, fee=3)
    other = spec(fee=3, grid={"slow": [10, 20], "fast": [1, 2]}, params={"allow_short": True})
    assert one.to_json() == other.to_json() and job_id(one, "d") == job_id(other, "d")
    assert spec_from_json(one.to_json()) == one and spec_from_json(one.to_json()).to_json() == one.to_json()


def test_grid_points_have_the_same_numbers_whatever_the_order_of_keys() -> None:
    """Tasks carry point numbers from process to process, and JSON objects keep no order."""
    one = spec(grid={"fast": [1, 2], "slow": [10, 20, 30]})
    other = spec_from_json(one.to_json())
    third = spec(grid={"slow": [10, 20, 30], "fast": [1, 2]})
    numbered = [{index: params for index, params, _ in grid_points(s, 0, 6)} for s in (one, other, third)]
    assert len(numbered[0]) == 6 and numbered[0] == numbered[1] == numbered[2]
    assert [index for index, _, _ in grid_points(one, 2, 3)] == [2, 3, 4]


def test_each_change_makes_another_job() -> None:
    base = spec(account="units")
    changes: dict[str, Any] = {
        "symbol": "Y", "strategy": "other", "params": {**base.params, "fast": 11}, "grid": {"fast": [1]},
        "start": base.start + MINUTE, "end": base.end - MINUTE, "fee": 1, "slippage": 1, "stop_loss": 1,
        "take_profit": 1, "trailing_stop": 1, "fill": "close", "path": "best", "quantity": 1, "timeframe": 2,
        "maker_fee": 1, "capital": 1, "volume_share": 1, "volume_scale": 1, "funding": True, "sizing": "compound",
        "notional": 1, "schedule": [Leg(base.start, {})], "account": "cash", "size": "units", "step": 2,
        "min_quantity": 1, "min_notional": 1, "leverage": 1, "borrow": 1, "warm_up": "stored",
        "margin": "cross", "tiers": {"X": [TierTable(0, [Tier(0, 1, 0)])]}, "marks": "d", "limit_through": 1,
        "universe": "top:1:by=turnover:over=1d:every=1d", "delist_after": 2,
    }  # fmt: skip
    assert set(changes) == set(Spec.__struct_fields__)
    beside = {"notional": {"sizing": "notional"}} | {name: {"account": "cash"} for name in CASH_RULES}
    ids = {
        job_id(msgspec.structs.replace(base, **{name: value}, **beside.get(name, {})), "d")
        for name, value in changes.items()
    }
    assert len(ids | {job_id(base, "d"), job_id(base, "e")}) == len(changes) + 2


def test_what_means_the_same_is_the_same_job() -> None:
    assert spec(fee=7, maker_fee=7) == spec(fee=7)
    assert spec(sizing="compound") == spec(sizing="compound", capital=10_000 * SCALE)
    assert spec() == spec(account="cash", size="equity", capital=10_000 * SCALE)
    assert spec(sizing="notional", capital=5) == spec(sizing="notional", capital=5, notional=5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sizing": "compound", "quantity": 2}, "sizing=compound: it belongs to account=units with sizing=fixed"),
        ({"sizing": "fixed", "notional": 2}, "does not go with sizing=fixed: it belongs to account=units with sizing="),
        ({"notional": 2}, "does not go with size=equity: .* or account=cash with size=notional"),
        ({"account": "cash", "quantity": 2}, "quantity=0.00000002 does not go with size=equity"),
        ({"size": "equity", "quantity": 2}, "quantity is of account units, size of account cash: leave one out"),
        ({"sizing": "fixed", "leverage": 2_000_000}, "sizing is of account units, leverage of account cash"),
        ({"sizing": "compound", "volume_share": 2}, "volume_share=2 does not go with sizing=compound"),
        ({"sizing": "all"}, "sizing='all' is none of fixed, notional, compound"),
    ],
)
def test_sizings_that_contradict_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        spec(**more)


@pytest.mark.parametrize(
    ("more", "account"),
    [
        ({}, "cash"),
        ({"capital": 5 * SCALE}, "cash"),
        ({"quantity": SCALE}, "units"),
        ({"sizing": "fixed"}, "units"),
        ({"sizing": "notional", "notional": SCALE}, "units"),
        ({"volume_share": 10_000}, "units"),
        ({"volume_share": 0}, "cash"),
        ({"size": "units", "quantity": SCALE}, "cash"),
    ],
)
def test_what_belongs_to_account_units_alone_means_it(more: dict[str, Any], account: str) -> None:
    assert spec(**more).account == account


def test_a_point_of_a_sweep_is_the_job_it_would_be_alone() -> None:
    sweep = spec(grid={"fast": [1, 2], "slow": [10, 20]}, fee=7)
    for _, params, _ in grid_points(sweep, 0, 4):
        alone = spec(params=dict(params), fee=7)
        assert sweep.single(params).to_json() == alone.to_json()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"symbol":', '{"symbol":"X","colour":1}'])
def test_json_that_is_no_job_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="not a job"):
        spec_from_json(text)


@pytest.mark.parametrize(("text", "ppm"), [("3x", 3_000_000), ("2.5x", 2_500_000), ("500000", 500_000), (7, 7)])
def test_leverage_is_a_multiple_or_ppm(text: str | int, ppm: int) -> None:
    assert parse_leverage(text) == ppm


@pytest.mark.parametrize("text", ["0", "0x", "x", "-1x", "1.00000001x", "three"])
def test_no_leverage(text: str) -> None:
    with pytest.raises(BadInput):
        parse_leverage(text)


def test_a_minimum_may_be_none() -> None:
    assert OPTIONS["min_notional"].parse("0.0") == 0
    assert OPTIONS["min_notional"].parse("10") == 10 * SCALE
    with pytest.raises(BadInput, match="step '0' is not between"):
        OPTIONS["step"].parse("0")
