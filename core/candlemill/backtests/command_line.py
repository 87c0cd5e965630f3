"""Command line that runs a spec again."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from candlemill.backtests.spec import OPTIONS, ParamValue, Spec
from candlemill.engine.candles import MINUTE_MS
from candlemill.units import iso, parse_range

_APART = frozenset(
    {"symbol", "strategy", "params", "grid", "start", "end", "schedule", "volume_scale", "tiers", "marks"}
)


def command_of(spec: Spec, verb: str | None = None, axes: Mapping[str, Sequence[ParamValue]] = {}, **more: str) -> str:
    """Return one command line for a POSIX shell.

    Options with their default value are omitted; `axes` are further axes of the grid, `more` options that are not part
    of a spec. A schedule has no option.
    """
    options = [("symbol", spec.symbol), ("strategy", spec.strategy)]
    options += [("param", f"{name}={value_text(value)}") for name, value in spec.params.items()]
    options += [("grid", f"{name}={grid_text(values)}") for name, values in {**spec.grid, **axes}.items()]
    options.append(("range", range_of(spec.start, spec.end)))
    defaults = {field.name: field.default for field in msgspec.structs.fields(spec)}
    for name in spec.__struct_fields__:
        value = getattr(spec, name)
        if name not in _APART and value != defaults[name]:
            options.append((name.replace("_", "-"), "" if value is True else option_text(name, value)))
    options += list(more.items())
    words = ["candlemill", verb or ("sweep" if spec.grid else "backtest")]
    for name, text in options:
        # A value that begins with a dash would be read as an option.
        words += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text] if text else [f"--{name}"]
    return shlex.join(words)


def value_text(value: ParamValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def grid_text(values: Sequence[ParamValue]) -> str:
    """Return grid values as text; evenly spaced values become a span such as `5:50:5`."""
    if len(values) > 2 and all(type(v) is int and v >= 0 for v in values):
        first, second = int(values[0]), int(values[1])
        span = range(first, int(values[-1]) + 1, max(second - first, 1))
        if list(span) == list(values):
            return f"{first}:{values[-1]}" + (f":{span.step}" if span.step > 1 else "")
    return ",".join(value_text(v) for v in values)


def option_text(name: str, value: Any) -> str:
    return OPTIONS[name].text(value) if name in OPTIONS else str(value)


def range_of(start: int, end: int) -> str:
    """Return the shortest text that `parse_range` reads as these milliseconds, with both ends included."""
    first, last = iso(start)[:16], iso(end - MINUTE_MS)[:16]
    lengths = (4, 7, 10, 16)  # year, month, day, minute
    options = [first[:n] for n in lengths] + [f"{first[:n]}..{last[:m]}" for n in lengths for m in lengths]
    return next((text for text in options if parse_range(text) == (start, end)), options[-1])
