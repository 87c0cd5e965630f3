"""Every wrong strategy is caught by the test that is meant for it; no right one is accused of anything."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import dishonest
import numpy as np
import pytest
from candlemill.checks import fresh_process
from candlemill.checks.lookahead import smallest
from candlemill.checks.markets import COLUMNS, FUTURES, STYLES, draw, market_of, other_future
from candlemill.checks.runner import TESTS, Report, check
from candlemill.checks.subject import varied
from candlemill.cli import main
from candlemill.engine.candles import CandleColumns
from candlemill.errors import BadInput
from candlemill.strategies import REGISTERED, Strategy, build
from candlemill.strategies.registry import ORDER_STRATEGIES, PANEL_STRATEGIES
from honest import HONEST

RUNS = int(os.environ.get("CANDLEMILL_CHECK_RUNS", "26"))  # 200 take minutes
SEES_THE_FUTURE = (
    "LastClose", "CentredWindow", "WholeSeriesNorm", "WholeSeriesZScore", "SameHour", "SameHourHigh", "NextClose",
    "ShiftMinusOne", "RollWrap", "BackFilled", "Ranked", "BestBar", "PeakFilter", "Length", "TopOfRange", "NextGap",
)  # fmt: skip
CAUGHT_BY = {
    **dict.fromkeys(SEES_THE_FUTURE, "future-cut"),
    "ShortByOne": "lookback", "ShortByOneStateful": "lookback", "RunningSum": "lookback", "SinceStart": "lookback",
    "Ema": "lookback", "EveryTenth": "lookback", "PartOnly": "resume", "SeededRandom": "lookback",
    "Forgetful": "repeat", "Hoarder": "memory", "NotCanonical": "resume", "WindowedWithMemory": "resume",
    "BinaryMemory": "answers", "MutableGlobal": "repeat", "ClassAttribute": "repeat", "CachedByLength": "lookback",
    "Scratch": "threads", "Random": "repeat", "RareRandom": "repeat", "Tired": "later", "Year": "process",
    "Hash": "process", "Environment": "process", "WritesToBars": "inputs", "Undeclared": "columns",
    "OutOfRange": "answers", "WrongLength": "answers", "WrongType": "answers", "FailsWhenShort": "answers",
    "FailsWithoutVolume": "answers",
}  # fmt: skip
WARNED_BY = {"Wraps": "overflow", "FloatSumState": "guesses", "Leaks": "memory", "Slow": "speed"}


def wrong(name: str) -> type[Strategy]:
    dishonest.SEEN.clear()
    dishonest.CACHE.clear()
    dishonest.ClassAttribute.best[0] = dishonest.Tired.calls[0] = 0
    kind: type[Strategy] = getattr(dishonest, name)
    return kind


def faults(report: Report) -> dict[str, str]:
    return {finding.test: finding.text for finding in report.findings if finding.verdict == "fault"}


def test_no_wrong_strategy_is_forgotten() -> None:
    kinds = [kind for kind in vars(dishonest).values() if isinstance(kind, type) and issubclass(kind, Strategy)]
    ours = {kind.__name__ for kind in kinds if kind.__module__ == dishonest.__name__}
    orders = {kind.__name__ for kind in dishonest.ORDERS}  # test_check_orders.py tries these
    assert ours == {*CAUGHT_BY, *WARNED_BY, "Clock", *orders}


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_wrong_strategies_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISHONEST_LEVEL", "5")
    test = CAUGHT_BY[name]
    only = [test, "overflow"]  # `later` needs something to have been requested meanwhile
    timeframes = [15] if test == "inputs" else [1, 15]  # columns of minute bars refuse to be written to
    report = check(wrong(name), only=only, timeframes=timeframes, elsewhere=fresh_process.decide)
    assert test in faults(report), report.findings


@pytest.mark.clock
def test_a_clock_is_caught_by_some_test() -> None:
    assert faults(check(wrong("Clock"), elsewhere=fresh_process.decide))


@pytest.mark.parametrize("name", SEES_THE_FUTURE)
def test_another_future_tells_too(name: str) -> None:
    found = check(wrong(name), only=["future-altered"])["future-altered"]
    assert found.verdict == "fault"
    case = found.counterexample
    assert case is not None
    assert case.said[0][1] != case.said[1][1]
    assert not case.changed or min(change.t for change in case.changed) > (case.t or 0)


@pytest.mark.parametrize("name", WARNED_BY)
def test_doubtful_strategies_are_warned_of(name: str) -> None:
    report = check(wrong(name), only=[WARNED_BY[name]])
    assert report.honest
    assert report[WARNED_BY[name]].verdict == "warning", report.findings


def test_cutting_alone_would_show_it_too() -> None:
    """`cuts` is not run where its cause is known already: by itself it finds the same strategies."""
    for name in ("LastClose", "ShortByOne", "RunningSum", "SinceStart", "WholeSeriesNorm"):
        assert faults(check(wrong(name), only=["cuts"])), name


def test_counterexamples_are_small() -> None:
    for name, test, bars in (
        ("ShortByOne", "lookback", 21),
        ("ShiftMinusOne", "future-cut", 3),
        ("Ema", "lookback", 80),
    ):
        case = check(wrong(name), only=[test])[test].counterexample
        assert case is not None
        assert len(case.candles) == case.bars <= bars, name
    case = check(wrong("PeakFilter"), only=["future-altered"])["future-altered"].counterexample
    assert case is not None
    assert [change.column for change in case.changed] == ["close"]


def test_the_same_seed_finds_the_same() -> None:
    one, two = (check(wrong("SameHour"), only=["future-cut"], seed=7).findings for _ in range(2))
    assert one == two
    assert one != check(wrong("SameHour"), only=["future-cut"], seed=8).findings


@pytest.mark.parametrize("run", range(RUNS))
def test_no_right_strategy_is_accused(run: int) -> None:
    rng = np.random.default_rng([0, run])
    kinds = [*(kind for name, kind in REGISTERED.items() if name not in ORDER_STRATEGIES | PANEL_STRATEGIES), *HONEST]
    kind = kinds[run % len(kinds)]
    strategy = varied(build_default(kind), frozenset(), rng)
    tests = [test for test in TESTS if test != "speed" and (test != "process" or run % 5 == 0)]
    timeframes = ([1, 15], [1], [5, 60], [240], [1, 7])[int(rng.integers(0, 5))]
    report = check(strategy, seed=run, timeframes=timeframes, only=tests, elsewhere=fresh_process.decide, seconds=0.2)
    assert not faults(report), (strategy, faults(report))


def build_default(kind: type[Strategy]) -> Strategy:
    names = [name for name, known in REGISTERED.items() if known is kind]
    return build(names[0], {}) if names else kind()


def test_given_candles_are_used_in_stretches() -> None:
    market = draw(np.random.default_rng(3), "walk", 5_000)
    for data in (market, market.candles(COLUMNS)):
        assert check(REGISTERED["sma_cross"], data, seconds=0.5).honest
        assert faults(check(wrong("NextClose"), data, only=["future-cut"]))
    few = market.crop(0, 3)
    assert check(REGISTERED["sma_cross"], few, seconds=0.2).honest


def test_a_check_makes_every_test() -> None:
    report = check(REGISTERED["sma_cross"], elsewhere=fresh_process.decide)
    assert [finding.test for finding in report.findings] == list(TESTS)
    assert report.honest


def test_trials_end_where_their_time_is_over() -> None:
    report = check(REGISTERED["sma_cross"], seconds=0)
    assert report["lookback"].text == "2 of 24 trials: the time was over"


def test_speed_is_judged_by_a_loop_on_the_same_machine() -> None:
    """Several calls of NumPy for each bar are slow on any machine, a plain Python loop is on none."""
    slow, plain = (check(wrong(name), only=["speed"])["speed"] for name in ("Slow", "Ema"))
    assert slow.verdict == "warning"
    assert "times as long as a plain Python loop: a year of minutes takes" in slow.text
    assert plain.verdict == "note"


def test_what_cannot_be_tried_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown test 'future'"):
        check(REGISTERED["sma_cross"], only=["future"])
    with pytest.raises(BadInput, match="1 candles are too few"):
        check(REGISTERED["sma_cross"], draw(np.random.default_rng(3), "walk", 1))
    with pytest.raises(BadInput, match="no timeframe"):
        check(REGISTERED["sma_cross"], timeframes=[])


# -- markets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_markets_are_candles(style: str) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        market = draw(rng, style, 500, int(rng.choice([1, 15, 1440])))
        for kind in ("", *FUTURES):
            i = int(rng.integers(0, 499))
            other = other_future(rng, market, i, kind) if kind else market
            assert (np.diff(other.t) > 0).all()
            assert (other.t % 60_000 == 0).all()
            assert (other.high >= np.maximum(other.open, other.close)).all(), kind
            assert (other.low <= np.minimum(other.open, other.close)).all(), kind
            assert (other.low >= 1).all()
            assert (other.volume >= 0).all()
            assert all((getattr(other, c)[: i + 1] == getattr(market, c)[: i + 1]).all() for c in COLUMNS), kind


def test_candles_come_back_as_a_market() -> None:
    market = draw(np.random.default_rng(1), "sparse", 50)
    candles = CandleColumns(*([getattr(market, name)] for name in COLUMNS))
    assert all((getattr(market_of(candles, ""), name) == getattr(market, name)).all() for name in COLUMNS)


def test_smallest_is_small() -> None:
    for least in (1, 2, 3, 17, 99, 100):
        assert smallest(lambda m, least=least: m >= least or None, 100) == least  # type: ignore[misc]


# -- command line --------------------------------------------------------------------------------------------------

PEEK = """
import numpy as np
from candlemill.strategies import Windowed

class Peek(Windowed, frozen=True):
    n: int = 5

    def lookback(self):
        return self.n

    def positions(self, bars):
        return np.append(bars.close[1:], 0) > bars.close
"""


@pytest.fixture
def peek(tmp_path: Path) -> str:
    path = tmp_path / "peek.py"
    path.write_text(PEEK)
    return str(path)


def test_command_finds_a_fault(peek: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["check", peek, "--param", "n=3"]) == 1
    out = capsys.readouterr().out
    assert "FAULT    future-cut" in out
    assert "with candles that end there" in out
    assert "--param n=3 --timeframe 1m,15m --seed 1 --only future-cut" in out
    assert "faults found" in out


def test_command_as_json(peek: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["check", f"{peek}:Peek", "--json", "--only", "future-cut,process"]) == 1
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["honest"] is False
    assert [finding["verdict"] for finding in found["findings"]] == ["fault", "ok"]
    assert found["findings"][0]["counterexample"]["candles"]


def test_command_on_stored_candles(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--symbol", "AAAUSDT", "--range", "2024-02", "--timeframe", "5m", "--only", "lookback,cuts"]
    assert main.main(["check", "donchian", "--param", "entry=20", "--param", "exit=10", *arguments]) == 0
    out = capsys.readouterr().out
    assert "candles of AAAUSDT" in out
    assert "no fault found" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.py"], "nothing.py"),
        (["sma_cros"], "did you mean 'sma_cross'?"),
        (["sma_cross", "--param", "fsat=3"], "did you mean 'fast'?"),
        (["sma_cross", "--range", "2024"], "--symbol"),
        (["sma_cross", "--timeframe", "1x"], "timeframe '1x'"),
        (["sma_cross", "--only", "luck"], "unknown test 'luck'"),
        (["sma_cross", "--seed", "-1"], "seed -1"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["check", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.clock
def test_a_class_of_this_process_only_is_passed_over() -> None:
    class Here(dishonest.Year, frozen=True):
        pass

    assert check(Here, only=["process"], elsewhere=fresh_process.decide)["process"].verdict == "skipped"
    assert sys.modules[__name__]  # a class of a module is found there
    assert check(wrong("Year"), only=["process"], elsewhere=fresh_process.decide)["process"].verdict == "fault"
