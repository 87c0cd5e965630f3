"""Parameters are typed, bounded and named; mistakes are answered with what was meant."""

import pytest
from candlemill.errors import BadInput, UnknownName
from candlemill.strategies import build

LOOKBACKS = {
    "bollinger": 19,  # the mean of 20 bars, this one included
    "breakout_stop": 480,
    "buy_and_hold": 0,
    "donchian": 480,
    "dual_momentum": 10_080,  # a week
    "grid": 0,
    "momentum_v1": 1_440,
    "inverse_volatility": 1_440,
    "pair_reversion": 120,
    "pullback_limit": 240,
    "sma_cross": 50,  # 50 bars, and those of the bar before: was it a cross?
    "time_of_day": 0,
    "xs_momentum": 1_440,
    "zscore_reversion": 59,
}


@pytest.mark.parametrize("name", sorted(LOOKBACKS))
def test_a_strategy_of_finite_memory_looks_back_as_far_as_its_definition(name: str) -> None:
    assert build(name, {}).lookback() == LOOKBACKS[name]


def test_texts_become_numbers_and_booleans() -> None:
    assert build("sma_cross", {"fast": "5", "slow": "20", "allow_short": "true"}) == build(
        "sma_cross", {"fast": 5, "slow": 20, "allow_short": True}
    )


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("sma_cros", {}, "did you mean 'sma_cross'?"),
        ("sma_cross", {"fsat": 5}, "did you mean 'fast'?"),
        ("sma_cross", {"fast": 50, "slow": 50}, "fast=50 must be less than slow=50"),
        ("sma_cross", {"fast": 0}, ">= 1"),
        ("momentum_v1", {"lookback": "soon"}, "lookback"),
        ("donchian", {"entry": 10_000_000}, "<= 1000000"),
        ("buy_and_hold", {"x": 1}, "it takes no parameters"),
    ],
)
def test_mistakes(name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput) as error:
        build(name, params)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_names_survive_a_process_boundary() -> None:
    import pickle

    error = UnknownName("symbol", "BTCUSD", ["BTCUSDT"], "advice")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
