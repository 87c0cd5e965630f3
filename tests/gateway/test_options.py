"""An option of a job is declared once, as a field of its spec or request: everything that offers options follows."""

import argparse
import re
from pathlib import Path
from typing import Any

import candlemill
import msgspec
import pytest
from candlemill.api import calls
from candlemill.backtests.options import Option
from candlemill.backtests.spec import OPTIONS, Spec
from candlemill.cli.main import parser
from candlemill.cli.reference import commands
from candlemill.errors import BadInput
from candlemill.gateway.schemas.catalog import option_row
from candlemill.pipeline.request import REQUEST_OPTIONS, Request, spec_of
from hypothesis import given
from hypothesis import strategies as st

PACKAGE = Path(candlemill.__file__).parent
JOBS = ("backtest", "sweep", "walk-forward", "plan")


def command(name: str) -> argparse.ArgumentParser:
    return next(sub for found, sub, _ in commands(parser()) if found == name)


@pytest.mark.parametrize("name", ["min_quantity", "min_notional"])
def test_an_option_lives_where_it_is_declared_and_where_it_acts(name: str) -> None:
    sources = [path for kind in ("*.py", "*.js") for path in PACKAGE.rglob(kind) if "vendor" not in path.parts]
    word = re.compile(rf"\b{name}\b")
    found = {path.relative_to(PACKAGE).parts[0] for path in sources if word.search(path.read_text())}
    assert not found & {"api", "cli", "gateway", "pipeline"}


@pytest.mark.parametrize("option", REQUEST_OPTIONS.values(), ids=str)
def test_everything_that_offers_options_has_it(option: Option) -> None:
    schema = msgspec.json.schema(Request)["$defs"]["Request"]["properties"][option.name]
    for verb in JOBS:
        action = next(one for one in command(verb)._actions if option.flag in one.option_strings)
        assert action.dest == option.name and (action.help or "").replace("%%", "%") == option.help
    row = option_row(option)
    assert (row.name, row.help, list(row.choices)) == (option.name, option.help, list(option.choices))
    if option.name in OPTIONS:
        assert schema["description"] == option.help
        assert option.name in calls.KEYWORDS and f"\n{option.name} (" in str(calls.backtest.__doc__)


def test_options_that_are_left_out_are_those_of_an_empty_spec() -> None:
    empty = spec_of(Request(symbol="X", strategy="buy_and_hold", range="2024"), "X")
    args = parser().parse_args(["backtest", "--symbol", "X", "--strategy", "buy_and_hold"])
    for name, option in OPTIONS.items():
        given = getattr(args, name)
        if not option.inferred:
            assert (None if given is None else option.parse(given)) == option.default
        assert given is None or not option.inferred
        assert getattr(empty, name) == option.default or (name, empty.capital) == ("capital", 10_000 * 10**8)


@given(st.data())
def test_a_value_is_written_as_it_is_read(data: st.DataObject) -> None:
    top = {"timeframe": 10_080, "rate": 10**6, "amount": 2**62, "leverage": 10**9}
    option = data.draw(st.sampled_from([one for one in OPTIONS.values() if one.kind in top]))
    value = data.draw(st.integers(1, top[option.kind]))
    assert option.parse(option.text(value)) == value


@pytest.mark.parametrize("option", [one for one in OPTIONS.values() if one.when], ids=str)
def test_an_option_is_refused_where_it_does_not_belong(option: Option) -> None:
    value: Any = next((c for c in option.choices if c != option.default), "3x" if option.kind == "leverage" else "2")
    settings = [{"account": a, "sizing": s} for a in ("units",) for s in ("fixed", "notional", "compound")]
    settings += [{"account": "cash", "size": s} for s in ("units", "notional", "equity")]
    for setting in settings:
        body = {"symbol": "X", "strategy": "buy_and_hold", "range": "2024", **setting, option.name: value}
        defaults = {name: one.default for name, one in OPTIONS.items()} | setting
        belongs = any(all(defaults[name] == text for name, text in one.items()) for one in option.when)
        if belongs:
            assert isinstance(spec_of(msgspec.convert(body, Request), "X"), Spec)
        elif option.name not in setting:
            with pytest.raises(BadInput, match=f"^{option.name}=.* does not go with"):
                spec_of(msgspec.convert(body, Request), "X")
