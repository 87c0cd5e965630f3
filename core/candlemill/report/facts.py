"""The inputs of a run as table rows: the request, the candles and the version of the code."""

from collections.abc import Mapping
from html import escape
from typing import Any

from candlemill import formatting
from candlemill.backtests.command_line import value_text
from candlemill.backtests.metric_table import shown
from candlemill.backtests.settings import declared, settings_text, unusual_params
from candlemill.backtests.spec import AMOUNTS, OPTIONS, RATES, Spec
from candlemill.engine.candles import MINUTE_MS
from candlemill.report import times
from candlemill.report.page import Cell, Html, Key

_APART = frozenset(
    {"symbol", "strategy", "params", "grid", "start", "end", "capital", "schedule", "volume_scale", "tiers", "marks"}
)


def title(spec: Spec) -> str:
    """Return symbol, strategy and the parameters that are not the usual ones."""
    given = settings_text(unusual_params(spec.strategy, spec.params))
    return f"{symbols(spec)} · {spec.strategy}" + (f"({given})" if given else "")


def symbols(spec: Spec) -> str:
    """Return the symbol, or the symbols of a panel."""
    return spec.symbol.replace(",", ", ")


def range_text(spec: Spec) -> str:
    return f"{times.minute(spec.start)} to {times.minute(spec.end - MINUTE_MS)} UTC"


def sharpe_key(result: Mapping[str, Any]) -> Key:
    below = f"Sortino {shown('sortino_ratio', result['sortino_ratio'])}"
    return Key("Sharpe ratio", shown("sharpe_ratio", result["sharpe_ratio"]), below)


def spec_rows(spec: Spec, result: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Return symbol, strategy, range, costs and other fields of a spec, and the missing candles.

    `result` is any result of the job.
    """
    rows: list[tuple[str, Cell]] = [
        ("symbol", symbols(spec)),
        ("strategy", spec.strategy),
        *[(f"parameter {name}", value_text(value)) for name, value in declared(spec.strategy, spec.params).items()],
        ("range", range_text(spec)),
        ("bars", f"{result['bars']:,} of {spec.minutes:,} minutes"),
        ("missing minutes", f"{result['missing_minutes']:,}"),
    ]
    varied = spec.schedule[0].options if spec.varies else {}
    rows += [(name.replace("_", " "), "of each window") for name in varied]
    for name in spec.__struct_fields__:
        if name in varied:
            continue
        value = getattr(spec, name)
        idle = name in OPTIONS and not OPTIONS[name].belongs(spec)
        if name not in _APART and not idle and (value not in (0, None, "") or name in ("fee", "slippage")):
            rows.append((name.replace("_", " "), _option(name, value)))
    return rows


def _option(name: str, value: Any) -> str:
    if name in AMOUNTS:
        return formatting.exact(value)
    if name in RATES:
        return formatting.rate(value)
    if name == "timeframe":
        return f"{value} min"
    if name == "leverage":
        return f"{value / 1e6:g}x"
    if isinstance(value, bool):
        return "yes"
    return str(value)


def identity(found: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Return the known addresses and digests with their names."""
    return [(name, Html(f'<span class="mono">{escape(str(value))}</span>')) for name, value in found.items() if value]


def identity_of(result: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    names = {"job": "job_id", "digest of the candles": "data_digest", "digest of the result": "result_digest"}
    return identity({name: result.get(key) for name, key in names.items()})
