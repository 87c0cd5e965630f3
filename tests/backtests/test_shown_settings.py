"""What tells jobs of a list apart: parameters in the declared order, and nothing that is usual."""

from typing import Any

from candlemill.backtests.resolve import resolve
from candlemill.backtests.settings import declared, settings_of, settings_text, unusual_params
from candlemill.backtests.spec import OPTIONS, spec_from_json

MONTH = (1_704_067_200_000, 1_706_745_600_000)


def spec(**more: Any) -> Any:
    return resolve(symbol="X", strategy="sma_cross", span=MONTH, **{"params": {}} | more)


def test_a_usual_job_has_no_settings() -> None:
    assert settings_of(spec()) == {}
    assert settings_text({}) == ""


def test_settings_are_those_given_in_the_declared_order() -> None:
    # JSON of a stored spec is sorted: allow_short comes before fast and slow there
    found = spec_from_json(
        spec(
            params={"slow": 60, "allow_short": True, "fast": 20}, stop_loss=20_000, timeframe=15, path="both"
        ).to_json()
    )
    assert list(settings_of(found).items()) == [
        ("fast", "20"), ("slow", "60"), ("allow_short", "true"), ("stop_loss", "2%"), ("path", "both"),
        ("timeframe", "15m"),
    ]  # fmt: skip
    assert settings_text(settings_of(found, apart={"path", "timeframe"})) == (
        "fast=20, slow=60, allow_short=true, stop_loss=2%"
    )


def test_axes_are_shown_by_their_number_of_values() -> None:
    found = spec(grid={"slow": [60, 80, 100, 120], "fast": [5, 10]})
    assert settings_text(settings_of(found)) == "fast: 2 values, slow: 4 values"


def test_the_capital_of_units_follows_from_the_account() -> None:
    assert settings_of(spec(account="units")) == {"account": "units"}
    assert settings_of(spec(capital=OPTIONS["capital"].parse("500"))) == {"capital": "500"}


def test_parameters_of_an_unknown_strategy_stay_as_they_are() -> None:
    params = {"b": 1, "a": 2}
    assert list(declared("no_such_strategy", params)) == ["b", "a"]
    assert unusual_params("no_such_strategy", params) == {"b": "1", "a": "2"}
