"""Parameters are typed, bounded and named; mistakes are answered with what was meant."""

import pytest
from candlemill.errors import BadInput, UnknownName
from candlemill.strategies import REGISTERED, build


@pytest.mark.parametrize("name", sorted(REGISTERED))
def test_defaults_are_valid_and_looked_back_upon(name: str) -> None:
    assert build(name, {}).lookback() >= 0


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
