"""Pictures of results as PNG files, for assistants that can look at them."""

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from candlemill.backtests.metric_table import label, shown
from candlemill.formatting import money

WIDTH, HEIGHT = 1000, 560
LEFT, RIGHT, TOP, BOTTOM = 110, 20, 50, 30
SPLIT, GAP = 380, 30  # where the drawdown's panel begins, and the space above it
PAPER, INK, MUTED, RULE = "white", "#1d2630", "#5f6c7a", "#e4e8ed"
LINE, OTHER, FALL = "#2563c9", "#a66a00", "#c8322d"
LOW, HIGH = (247, 251, 255), (8, 48, 107)
CELL_LEAST = 6  # pixels of a heat map's cell

Values = NDArray[np.float64]


def equity(curve: dict[str, Any], job: dict[str, Any]) -> bytes:
    """Draw profit, buy and hold, and drawdown over time. `curve` is the answer of `…/equity`, in scaled integers."""
    picture, draw = _blank(f"{job['spec']['symbol']}  {job['spec']['strategy']}: profit (blue), buy and hold (brown)")
    t = np.array(curve["t"], dtype=np.float64)
    lines = [(np.array(curve[name], dtype=np.float64), colour) for name, colour in _lines(curve)]
    if len(t) < 2:
        draw.text((LEFT, TOP), "no bars", fill=MUTED)
        return _png(picture)
    x = LEFT + (t - t[0]) / (t[-1] - t[0]) * (WIDTH - LEFT - RIGHT)
    upper, lower = (TOP, SPLIT - GAP), (SPLIT, HEIGHT - BOTTOM)
    span = min(float(v.min()) for v, _ in lines), max(float(v.max()) for v, _ in lines)
    _grid(draw, upper, span)
    for values, colour in reversed(lines):
        draw.line(_points(x, values, upper, span), fill=colour, width=2)
    fall = np.array(curve["drawdown"], dtype=np.float64)
    deepest = (min(float(fall.min()), -1.0), 0.0)
    _grid(draw, lower, deepest)
    points = _points(x, fall, lower, deepest)
    draw.polygon([(float(x[0]), lower[0]), *points, (float(x[-1]), lower[0])], fill="#f6e0df")
    draw.line(points, fill=FALL, width=1)
    draw.text((LEFT, SPLIT - 18), "drawdown", fill=MUTED)
    for place, ms in ((LEFT, t[0]), (WIDTH - RIGHT - 66, t[-1])):
        draw.text((place, HEIGHT - 20), datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d"), fill=MUTED)
    return _png(picture)


def _lines(curve: dict[str, Any]) -> list[tuple[str, str]]:
    return [("equity", LINE), *([("benchmark", OTHER)] if curve["benchmark"] else [])]


def heat_map(cells: dict[str, Any]) -> bytes:
    """Draw a figure over two parameters; the best cell has a frame. `cells` is the answer of `…/heatmap`."""
    metric, x, y = cells["metric"], cells["x"], cells["y"]
    picture, draw = _blank(f"{label(metric)} by {x['name']} (across){' and ' + y['name'] if y['name'] else ''}")
    grid = np.array([[np.nan if z is None else float(z) for z in row] for row in cells["z"]])
    if not np.isfinite(grid).any():
        draw.text((LEFT, TOP), "no set has this figure", fill=MUTED)
        return _png(picture)
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    best = int(np.nanargmax(grid if cells["better"] == "high" else -grid))
    wide = max(CELL_LEAST, (WIDTH - LEFT - RIGHT) / grid.shape[1])
    tall = max(CELL_LEAST, (HEIGHT - TOP - BOTTOM) / grid.shape[0])
    for (row, column), value in np.ndenumerate(grid):
        box = (LEFT + column * wide, HEIGHT - BOTTOM - (row + 1) * tall, LEFT + (column + 1) * wide - 1,
               HEIGHT - BOTTOM - row * tall - 1)  # fmt: skip
        share = 0.5 if high == low else (value - low) / (high - low)
        colour = "#dddddd" if np.isnan(value) else _between(share)
        draw.rectangle(box, fill=colour, outline=FALL if row * grid.shape[1] + column == best else None, width=3)
        if wide > 60 and tall > 14 and not np.isnan(value):
            draw.text((box[0] + 5, box[1] + 3), shown(metric, int(value)), fill=INK if share < 0.5 else PAPER)
    for k, name in _ends(x["values"]):
        draw.text((LEFT + k * wide + 2, HEIGHT - BOTTOM + 6), str(name)[:12], fill=MUTED)
    for k, name in _ends(y["values"]):
        draw.text((8, HEIGHT - BOTTOM - (k + 0.5) * tall - 6), str(name)[:14], fill=MUTED)
    draw.text(
        (LEFT, TOP - 16), f"from {shown(metric, int(low))} (light) to {shown(metric, int(high))} (dark)", fill=MUTED
    )
    return _png(picture)


def _ends(values: list[Any]) -> list[tuple[int, Any]]:
    """Return some values with their positions: all of a short axis, else the first, the middle and the last."""
    some = range(len(values)) if len(values) <= 8 else (0, len(values) // 2, len(values) - 1)
    return [(k, values[k]) for k in some]


def _between(share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(LOW, HIGH, strict=True))
    return red, green, blue


def _blank(title: str) -> tuple[Any, Any]:
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((LEFT, 12), title, fill=INK)
    return picture, draw


def _grid(draw: Any, panel: tuple[int, int], span: tuple[float, float]) -> None:
    """Draw five lines with their values, in money."""
    for k in range(5):
        y = panel[1] - k * (panel[1] - panel[0]) / 4
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=RULE)
        draw.text((8, y - 6), money(round(span[0] + k * (span[1] - span[0]) / 4)), fill=MUTED)


def _points(x: Values, values: Values, panel: tuple[int, int], span: tuple[float, float]) -> list[tuple[float, float]]:
    y = panel[1] - (values - span[0]) / ((span[1] - span[0]) or 1.0) * (panel[1] - panel[0])
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _png(picture: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
