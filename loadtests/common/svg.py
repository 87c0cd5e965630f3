"""Small charts as SVG text: lines over linear or logarithmic axes. They carry all they need and ask nobody."""

import math
from collections.abc import Sequence
from html import escape

import msgspec

COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2")
INK, FAINT = "#4b5563", "#e5e7eb"
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 14, 44

Points = Sequence[tuple[float, float]]


class Series(msgspec.Struct, frozen=True):
    """A line, or dots alone."""

    name: str
    points: Points
    dots: bool = False
    dashed: bool = False
    colour: str = ""


class Axis(msgspec.Struct, frozen=True):
    label: str
    log: bool = False
    least: float | None = None


class _Scale:
    """From values to pixels."""

    def __init__(self, values: Sequence[float], axis: Axis, first: float, last: float) -> None:
        low, high = min(values), max(values)
        self._log = axis.log
        if axis.log:
            self.ticks = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
            low, high = self.ticks[0], self.ticks[-1]
        else:
            low = min(low, 0.0) if axis.least is None else axis.least
            step = _nice((high - low) / 4 or 1.0)
            high = math.ceil(high / step - 1e-9) * step or step
            self.ticks = [low + step * k for k in range(round((high - low) / step) + 1)]
        self._low, self._high = self._of(low), self._of(high)
        self._first, self._last = first, last

    def _of(self, value: float) -> float:
        return math.log10(value) if self._log else value

    def __call__(self, value: float) -> float:
        share = (self._of(value) - self._low) / ((self._high - self._low) or 1.0)
        return self._first + share * (self._last - self._first)


def _nice(step: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def number(value: float) -> str:
    """As short as it can be."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):g}{unit}"
    return f"{value:,g}" if abs(value) >= 1e-3 or not value else f"{value:.0e}"


def chart(series: Sequence[Series], x: Axis, y: Axis, width: int = 720, height: int = 300, title: str = "") -> str:
    """An `<svg>` with its legend."""
    every = [point for one in series for point in one.points]
    across = _Scale([point[0] for point in every], x, LEFT, width - RIGHT)
    up = _Scale([point[1] for point in every], y, height - BOTTOM, TOP + 16 * (len(series) > 1))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="{escape(title or y.label)}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for tick in up.ticks:
        at = up(tick)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{width - RIGHT}" stroke="{FAINT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="{INK}">{number(tick)}</text>')
    for tick in across.ticks:
        at, foot = across(tick), height - BOTTOM
        parts.append(f'<path d="M{at:.1f} {foot}v4" stroke="{INK}"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 18}" text-anchor="middle" fill="{INK}">{number(tick)}</text>')
    parts.append(
        f'<text x="{(LEFT + width - RIGHT) / 2}" y="{height - 6}" text-anchor="middle" fill="{INK}">'
        f"{escape(x.label)}</text>"
    )
    parts.append(
        f'<text transform="translate(14 {(TOP + height - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" '
        f'fill="{INK}">{escape(y.label)}</text>'
    )
    begin = float(LEFT)
    for number_of, one in enumerate(series):
        colour = one.colour or COLOURS[number_of % len(COLOURS)]
        parts += _drawn(one, colour, across, up)
        if len(series) > 1:
            parts.append(
                f'<rect x="{begin}" y="4" width="12" height="4" y-offset="0" fill="{colour}"/>'.replace(
                    ' y-offset="0"', ""
                )
            )
            parts.append(f'<text x="{begin + 17}" y="11" fill="{INK}">{escape(one.name)}</text>')
            begin += 30 + 6.6 * len(one.name)
    return "".join([*parts, "</svg>"])


def _drawn(one: Series, colour: str, across: _Scale, up: _Scale) -> list[str]:
    places = [f"{across(a):.1f} {up(b):.1f}" for a, b in one.points]
    if one.dots:
        return [
            f'<circle cx="{place.split()[0]}" cy="{place.split()[1]}" r="4" fill="{colour}" stroke="#ffffff"/>'
            for place in places
        ]
    dash = ' stroke-dasharray="5 4"' if one.dashed else ""
    path = f'<path d="M{"L".join(places)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    return [path]
