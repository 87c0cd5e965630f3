"""`check` on strategies that place orders: honest ones pass, each dishonest one is found by a test that fits."""

from typing import Any, ClassVar

import numpy as np
import pytest
from candlemill.checks import fresh_process
from candlemill.checks.runner import check
from candlemill.engine.candles import Bars
from candlemill.strategies import (
    REGISTERED,
    Book,
    BookArrays,
    OrderStrategy,
    PositionView,
    Stateful,
    Weighted,
    Windowed,
    WindowedOrders,
)
from candlemill.strategies.registry import ORDER_STRATEGIES
from dishonest import ORDERS
from dishonest_orders import ZOO
from order_jobs import Weights


class HourBreakout(WindowedOrders, frozen=True):
    """A buy stop at the high of the last closed hour, out at its low."""

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})

    def lookback(self) -> int:
        return 180

    def orders(self, bars: Bars) -> BookArrays:
        hour = bars.at("1h")
        high, low = hour.latest(hour.high), hour.latest(hour.low)
        return (
            BookArrays(bars.n)
            .stop("up", 1, high, size=1_000_000, stop=low, when=high > 0)
            .stop("out", -1, low, part=1_000_000)
        )


class HourFilter(Windowed, frozen=True):
    """Long while the close is above that of the last closed hour."""

    def lookback(self) -> int:
        return 180

    def positions(self, bars: Bars) -> Any:
        hour = bars.at("1h")
        return bars.close > hour.latest(hour.close, bars.top)


class HourSteps(OrderStrategy, frozen=True):
    """The same bar by bar."""

    timeframes: ClassVar[tuple[str, ...]] = ("1h", "4h")

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        hour, four = bar.at("1h"), bar.at("4h")
        up = hour is not None and four is not None and bar.close > hour.close > four.open
        return Book(1_000_000 if up else 0), ()


class HourStates(Stateful, frozen=True):
    """The same without orders."""

    timeframes: ClassVar[tuple[str, ...]] = ("1h",)

    def step(self, state: Any, bar: Any) -> Any:
        hour = bar.at("1h")
        return int(hour is not None and bar.close > hour.close), ()


HONEST = (HourBreakout, HourSteps, Weights, *(REGISTERED[name] for name in sorted(ORDER_STRATEGIES)))


@pytest.mark.parametrize("kind", HONEST, ids=lambda kind: kind.__name__)
def test_honest_strategies_pass(kind: type) -> None:
    report = check(kind, timeframes=(1, 15), seconds=3.0)
    assert report.honest, [finding for finding in report.findings if finding.verdict == "fault"]
    assert report["repeat"].verdict == "ok"


@pytest.mark.parametrize("kind", [HourFilter, HourStates], ids=lambda kind: kind.__name__)
def test_closed_bars_look_at_no_future(kind: type) -> None:
    report = check(kind, timeframes=(1, 15), only=("future-cut", "future-altered", "lookback", "resume", "cuts"))
    assert report.honest, [finding for finding in report.findings if finding.verdict == "fault"]


@pytest.mark.parametrize("kind", ORDERS, ids=lambda kind: kind.__name__)
def test_dishonest_strategies_are_found(kind: Any) -> None:
    report = check(kind, timeframes=(1,), seconds=20.0)
    found = {finding.test for finding in report.findings if finding.verdict == "fault"}
    assert found & ORDERS[kind]
    case = next(finding.counterexample for finding in report.findings if finding.verdict == "fault")
    assert case is not None
    assert len(case.said) == 2


@pytest.mark.parametrize("kind", ZOO, ids=lambda kind: kind.__name__)
def test_each_kind_of_dishonesty_is_found_and_its_twin_passes(kind: Any) -> None:
    """The test that is named finds it alone. None of the others may take so long that they hide it."""
    twin, tests = ZOO[kind]
    for each, honest in ((kind, False), (twin, True)):
        report = check(each, timeframes=(1,), only=tests, elsewhere=fresh_process.decide, seconds=2.0)
        assert report.honest == honest, [(each.__name__, finding.text) for finding in report.findings]
        assert all(report[test].verdict in ("ok", "fault", "skipped") for test in tests)


def test_a_refusal_names_what_is_missing() -> None:
    class Undeclared(OrderStrategy, frozen=True):
        def step(self, state: Any, bar: Any, position: PositionView) -> Any:
            return Book(int(bar.at("1h") is not None)), ()

    assert "needs timeframes = ('1h',)" in check(Undeclared, timeframes=(1,), only=("repeat",))["repeat"].text


def test_weights_are_floats_of_each_bar() -> None:
    class Flat(Weighted, frozen=True):
        def lookback(self) -> int:
            return 0

        def weights(self, bars: Bars) -> Any:
            return np.zeros(bars.n + 1)

    assert "shape" in check(Flat, timeframes=(1,), only=("repeat",))["repeat"].text
