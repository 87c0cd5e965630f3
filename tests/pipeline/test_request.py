"""What people ask for over HTTP is the same job as on the command line, and can be requested again from its spec."""

import msgspec
import pytest
from candlemill.backtests.resolve import resolve
from candlemill.errors import BadInput, UnknownName
from candlemill.pipeline import events
from candlemill.pipeline.events import Event
from candlemill.pipeline.request import (
    Request,
    WalkForward,
    request_of,
    request_of_fields,
    requested,
    resolve_request,
)
from candlemill.stored_days import Day
from candlemill.units import SCALE, parse_range
from hypothesis import given, settings
from hypothesis import strategies as st

DAY = 86_400_000
START = 19_358 * DAY  # 2023-01-01


class TwoSymbols:
    """An index of two symbols with a day each."""

    def symbols(self):
        return ["BTCUSDT", "ETHUSDT"]

    def days(self, symbol):
        k = ["BTCUSDT", "ETHUSDT"].index(symbol) if symbol in self.symbols() else -1
        return [] if k < 0 else [Day(START + k * DAY, 1440, START + k * DAY, START + (k + 1) * DAY - 60_000, "d")]


def resolved(**fields):
    return resolve_request(msgspec.convert(fields, Request), TwoSymbols())


def test_the_seeds_request():
    found = resolved(symbol="BTCUSDT", strategy="momentum_v1", range="2023")
    span = parse_range("2023")
    assert (found.kind, found.spec.account, found.spec.capital) == ("backtest", "cash", 10_000 * SCALE)
    assert found.spec == resolve(symbol="BTCUSDT", strategy="momentum_v1", span=span, params={})


def test_a_range_of_all_is_what_the_symbols_have():
    assert (resolved(symbol="BTCUSDT", strategy="buy_and_hold").spec.start) == START
    both = resolved(symbol="*USDT", strategy="buy_and_hold")
    assert (both.kind, both.spec.start, both.spec.end) == ("portfolio", START, START + 2 * DAY)
    with pytest.raises(UnknownName, match="did you mean 'BTCUSDT'"):
        resolved(symbol="BTCUSD", strategy="buy_and_hold")


def test_kinds():
    grid = {"fast": "5:15:5", "slow": [20, 50]}
    assert resolved(symbol="BTCUSDT", strategy="sma_cross", grid=grid).spec.grid == {
        "fast": [5, 10, 15],
        "slow": [20, 50],
    }
    walk = resolved(symbol="BTCUSDT", strategy="sma_cross", grid=grid, walk_forward={"train": "90d"})
    assert (walk.kind, walk.walk_forward) == ("walk_forward", WalkForward(train="90d"))
    found = resolved(symbol=["ETHUSDT", "BTCUSDT"], strategy="buy_and_hold", weights={"ETHUSDT": 0.5})
    assert (found.kind, found.weights) == ("portfolio", {"ETHUSDT": SCALE // 2, "BTCUSDT": SCALE})
    for more, kind in (({}, "sweeps"), ({"walk_forward": {"train": "90d"}}, "walk_forwards")):
        found = resolved(symbol="BTCUSDT,ETHUSDT", strategy="sma_cross", grid=grid, **more)
        assert (found.kind, found.weights) == (kind, {"BTCUSDT": SCALE, "ETHUSDT": SCALE})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fee": -200_000}, "fee"),
        ({"range": "20233"}, "20233"),
        ({"strategy": "/tmp/evil.py:Strategy"}, "unknown strategy"),
        ({"timeframe": "5x"}, "5x"),
        ({"quantity": "1e9999"}, "quantity"),
        ({"colour": "red"}, "colour"),
        ({"weights": {"BTCUSDT": 1}}, "several symbols"),
        ({"walk_forward": {}}, "give a grid"),
        ({"grid": {"fast": "5:1"}}, "fast=5:1"),
        ({"symbol": "BTCUSDT,ETHUSDT", "grid": {"fast": [1]}, "weights": {"BTCUSDT": 2}}, "weights are for portfolios"),
    ],
)
def test_bad_requests_are_reported_in_one_line(change, said):
    with pytest.raises((BadInput, msgspec.ValidationError)) as caught:
        resolved(**{"symbol": "BTCUSDT", "strategy": "sma_cross"} | change)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flat_fields_as_texts():
    fields = {"symbol": "BTCUSDT", "strategy": "sma_cross", "params.fast": "10", "fee": "750", "funding": "false"}
    found = resolve_request(request_of_fields(fields | {"range": "2023-05"}), TwoSymbols())
    assert (found.spec.params["fast"], found.spec.fee) == (10, 750)


def event_of(data: object) -> Event:
    return Event(id="1", source="/me", type=events.REQUESTED, data=msgspec.json.encode(data))


def test_an_events_fields_are_a_request():
    """As kn sends them: nested, what looks like a number as one. The gateway's own data is taken as it is."""
    sent = {
        "symbol": "BTCUSDT",
        "strategy": "sma_cross",
        "range": 2023,
        "params": {"fast": 10},
        "slices": 4,
        "fee": 750,
    }
    found = requested(event_of(sent), TwoSymbols())
    same = resolved(symbol="BTCUSDT", strategy="sma_cross", range="2023", params={"fast": 10}, fee=750)
    assert found == events.Requested(same.spec, 4)
    assert requested(event_of(found), TwoSymbols()) == found
    swept = requested(event_of({**sent, "params": {}, "grid": {"fast": "5:15:5"}}), TwoSymbols())
    assert swept.spec.grid == {"fast": [5, 10, 15]}
    both = requested(event_of({**sent, "symbol": "BTCUSDT,ETHUSDT", "weights.ETHUSDT": "2"}), TwoSymbols())
    assert both.is_workflow and both.weights == {"BTCUSDT": SCALE, "ETHUSDT": 2 * SCALE}
    walk = requested(event_of({**sent, "params": {}, "grid.fast": "5,10", "walk_forward.train": "3mo"}), TwoSymbols())
    assert walk.walk_forward is not None and walk.walk_forward.train == "3mo"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"symbol": "BTCUSDT", "strategy": "sma_cross", "colour": "red"}, "colour"),
        ({"symbol": "BTCUSDT", "strategy": "sma_corss"}, "did you mean"),
        ({"symbol": "BTCUSDT", "strategy": "sma_cross", "max_gap": 5}, "max_gap is no field of an event"),
        ({"strategy": "sma_cross"}, "unknown field `strategy`"),
        (["symbol"], "array"),
        ({"symbol": "x" * 70_000}, "the limit is 65,536"),
    ],
)
def test_an_events_fields_may_be_poison(data, said):
    with pytest.raises(BadInput, match=said):
        requested(event_of(data), TwoSymbols())


rates = st.integers(0, 10**6)


@settings(max_examples=200, deadline=None)
@given(
    sizing=st.sampled_from(["fixed", "notional", "compound", None]),
    amount=st.integers(1, 2**62),
    fee=st.integers(-100_000, 10**6),
    stop=rates,
    fill=st.sampled_from(["next_open", "close"]),
    timeframe=st.integers(1, 10_080),
    minutes=st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)),
    grid=st.dictionaries(st.sampled_from(["fast", "slow"]), st.lists(st.integers(1, 500), min_size=1, max_size=5)),
)
def test_a_spec_is_requested_again_by_its_request(sizing, amount, fee, stop, fill, timeframe, minutes, grid):
    grid = {name: list(dict.fromkeys(values)) for name, values in grid.items()}
    own = {"fixed": "quantity", "notional": "notional", "compound": "capital", None: "capital"}[sizing]
    more = {"fee": fee, "stop_loss": stop, "fill": fill, own: amount, "timeframe": timeframe}
    if sizing:
        more["sizing"] = sizing
    span = (START + minutes[0] * 60_000, START + (minutes[0] + minutes[1]) * 60_000)
    try:
        spec = resolve(symbol="BTCUSDT", strategy="sma_cross", span=span, params={}, grid=grid, **more)
    except BadInput:
        return  # no set of the grid is valid
    assert resolve_request(msgspec.convert(request_of(spec), Request), TwoSymbols()).spec == spec
