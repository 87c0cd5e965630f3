"""Strategies of many symbols: honest ones are not accused, each kind of fault is found by its test."""

from typing import Any

import numpy as np
import pytest
from candlemill.checks.markets import draw
from candlemill.checks.runner import check
from candlemill.errors import BadInput
from candlemill.strategies import Panel, PanelStrategy, build
from candlemill.strategies.registry import PANEL_STRATEGIES
from conftest import Cli, said


class Peeks(PanelStrategy, frozen=True):
    """Holds the first symbol while the next bar of the last one closes higher."""

    def positions(self, panel: Panel) -> Any:
        after = np.append(panel.close[1:, -1], 0)
        out = np.zeros(panel.present.shape, dtype=np.int64)
        out[:, 0] = np.where(after > panel.close[:, -1], 1_000_000, 0)
        return out


class WholeRange(PanelStrategy, frozen=True):
    """Holds what is below the middle of the whole panel's range."""

    def positions(self, panel: Panel) -> Any:
        return np.where(panel.close * 2 < panel.close.max(initial=0), 0.1, 0.0)


class LooksFurther(PanelStrategy, frozen=True):
    """Uses 20 bars of each symbol's own, but tells 10."""

    def lookback(self) -> int:
        return 10

    def positions(self, panel: Panel) -> Any:
        return np.where(panel.close > panel.ago(panel.close, 20), 0.1, 0.0)


class Counts(PanelStrategy, frozen=True):
    """Answers otherwise the second time."""

    def positions(self, panel: Panel) -> Any:
        calls.append(1)
        return np.full(panel.present.shape, 1_000 * (len(calls) % 7))


class Writes(PanelStrategy, frozen=True):
    def positions(self, panel: Panel) -> Any:
        panel.close[:] = 0
        return panel.close


class FirstName(PanelStrategy, frozen=True):
    def positions(self, panel: Panel) -> Any:
        out = np.zeros(panel.present.shape)
        out[:, :1] = 1.0
        return out


class Honest(PanelStrategy, frozen=True):
    """Compares each symbol with the mean of those present, over rows; the window is within the lookback."""

    length: int = 5

    def lookback(self) -> int:
        return self.length

    def positions(self, panel: Panel) -> Any:
        rose = (panel.close > panel.ago(panel.close, self.length)).astype(np.int64)
        share = rose.sum(axis=1, keepdims=True) / np.maximum(panel.present.sum(axis=1, keepdims=True), 1)
        return np.where(panel.present & (rose == 1), share / 4, np.nan)


calls: list[int] = []


@pytest.mark.parametrize(
    ("kind", "tests"),
    [
        (Peeks, {"future-cut", "others-altered"}),
        (WholeRange, {"future-altered"}),
        (LooksFurther, {"lookback"}),
        (Counts, {"repeat"}),
        (Writes, {"answers"}),
    ],
)
def test_faults_are_found(kind: type[PanelStrategy], tests: set[str]) -> None:
    report = check(kind, seconds=2)
    assert not report.honest
    assert tests <= {one.test for one in report.findings if one.verdict == "fault"}


def test_a_counterexample_names_the_symbol_and_both_answers() -> None:
    case = check(Peeks, only=["others-altered"])["others-altered"].counterexample
    assert case is not None
    assert [text.split(" ")[0] for text, _ in case.said] == ["AAA", "AAA"]
    assert {answer for _, answer in case.said} == {"+0 ppm", "+1,000,000 ppm"}


@pytest.mark.parametrize("name", [*sorted(PANEL_STRATEGIES), "honest"])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_right_strategy_is_accused(name: str, seed: int) -> None:
    strategy = Honest() if name == "honest" else build(name, {})
    report = check(strategy, seed=seed, timeframes=([1, 7], [60])[seed - 1], seconds=2)
    assert report.honest, [one for one in report.findings if one.verdict == "fault"]


def test_names_that_decide_are_a_warning() -> None:
    found = check(FirstName, only=["names"])
    assert (found.honest, found["names"].verdict) == (True, "warning")


def test_given_candles_and_what_is_refused() -> None:
    assert check(Honest, draw(np.random.default_rng(1), "walk", 500), seconds=0.5).honest
    with pytest.raises(BadInput, match="unknown test of a panel 'cuts'"):
        check(Honest, only=["cuts"])


def test_stored_candles_of_several_symbols(run: Cli, database: Any) -> None:
    found = said(run("check", "xs_momentum", "--symbol", "AAAUSDT,BBBUSDT", "--param", "lookback=3", "--json"))
    assert (found["honest"], found["data"].endswith("candles")) == (True, True)
    code, _, err = run("check", "sma_cross", "--symbol", "AAAUSDT,BBBUSDT")
    assert (code, "trades one symbol" in err) == (2, True)
