"""What each symbol of a portfolio gets."""

import pytest
from candlemill.backtests.portfolio import parts_of
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.errors import BadInput
from candlemill.units import SCALE

START = 1_704_067_200_000
WEIGHTS = {"A": SCALE, "B": 3 * SCALE}


def spec_of(**options: object) -> Spec:
    return resolve(symbol="A", strategy="sma_cross", span=(START, START + 86_400_000), params={}, **options)


def test_capital_and_notional_are_divided() -> None:
    parts = parts_of(spec_of(capital=1_000 * SCALE, size="notional", notional=600 * SCALE), WEIGHTS)
    assert [(one.symbol, one.capital, one.notional) for one in parts] == [
        ("A", 250 * SCALE, 150 * SCALE),
        ("B", 750 * SCALE, 450 * SCALE),
    ]
    assert [one.notional for one in parts_of(spec_of(), WEIGHTS)] == [None, None]


def test_fixed_quantities_are_multiplied() -> None:
    spec = spec_of(account="units", quantity=2 * SCALE)
    assert [(one.quantity, one.capital) for one in parts_of(spec, WEIGHTS)] == [
        (2 * SCALE, spec.capital),
        (6 * SCALE, spec.capital),
    ]


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="the share of A comes to nothing"):
        parts_of(spec_of(capital=1_000 * SCALE), {"A": 1, "B": 10**6 * SCALE})
