"""What was run: asked, of which candles, by which code."""

from collections.abc import Mapping
from html import escape
from typing import Any

from candlemill.command import value_text
from candlemill.engine.tape import MINUTE_MS
from candlemill.model import Spec
from candlemill.report import units
from candlemill.report.page import Cell, Html

_APART = frozenset({"symbol", "strategy", "params", "grid", "start", "end", "capital", "schedule", "volume_scale"})


def title(spec: Spec) -> str:
    given = ", ".join(f"{name}={value_text(value)}" for name, value in spec.params.items())
    return f"{spec.symbol} · {spec.strategy}({given})"


def range_text(spec: Spec) -> str:
    return f"{units.minute(spec.start)} to {units.minute(spec.end - MINUTE_MS)} UTC"


def asked(spec: Spec, result: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Symbol, strategy, range, costs and whatever else a spec has; what the candles lack. `result` is any of the
    job's results."""
    rows: list[tuple[str, Cell]] = [
        ("symbol", spec.symbol),
        ("strategy", spec.strategy),
        *[(f"parameter {name}", value_text(value)) for name, value in spec.params.items()],
        ("range", range_text(spec)),
        ("bars", f"{result['bars']:,} of {spec.minutes:,} minutes"),
        ("missing minutes", f"{result['missing_minutes']:,}"),
    ]
    for name in spec.__struct_fields__:
        value = getattr(spec, name)
        idle = name == "quantity" and spec.sizing != "fixed"
        if name not in _APART and not idle and (value not in (0, None) or name in ("fee", "slippage")):
            rows.append((name.replace("_", " "), _option(name, value)))
    return rows


def _option(name: str, value: Any) -> str:
    if name == "quantity":
        return units.decimal(value, 8).rstrip("0").rstrip(".")
    if name == "notional":
        return units.money(value)
    if name == "timeframe":
        return f"{value} min"
    if isinstance(value, bool):
        return "yes"
    return f"{value:,} ppm" if isinstance(value, int) else str(value)


def identity(found: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Addresses and digests by their names, those that are known."""
    return [(name, Html(f'<span class="mono">{escape(str(value))}</span>')) for name, value in found.items() if value]


def identity_of(result: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    names = {"job": "job_id", "digest of the candles": "data_digest", "digest of the result": "result_digest"}
    return identity({name: result.get(key) for name, key in names.items()})
