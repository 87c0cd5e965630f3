"""Make the pictures of docs/orders.md: what the built-in order strategies place on candles, computed by the engine.

.venv/bin/python docs/order_pictures.py
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
from candlemill.backtests.order_chart import OrderChart, OrderLine, order_chart
from candlemill.backtests.resolve import resolve
from candlemill.engine.candles import MINUTE_MS, CandleColumns
from candlemill.strategies import build

DOCS = Path(__file__).resolve().parent
START = 1_704_067_200_000  # 2024-01-01
UNIT = 10**8
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 330, 10, 70, 34, 10
BUY, SELL, STOP, TAKE, INK, FAINT = "#1a7f37", "#b42318", "#c2410c", "#1d4ed8", "#333333", "#9a9a9a"

# Strategy, parameters, seed of the candles, how many; all prices are near 100.
PICTURES: dict[str, tuple[dict[str, Any], int, int, int]] = {
    "pullback_limit": ({"lookback": 12, "depth": 2500, "stop": 5000, "take": 6000, "hold": 40}, 2636, 20, 100),
    "breakout_stop": ({"entry": 12, "risk": 4000}, 751, 20, 100),
    "grid": ({"levels": 4, "spacing": 3000}, 346, 0, 80),
    "atr_bracket": ({"entry": 15, "atr": 10, "stop": 200, "take": 400}, 2582, 20, 100),
    "break_even": ({"lookback": 10, "rise": 4000, "stop": 8000, "arm": 5000, "lock": 1000, "hold": 40}, 1267, 15, 95),
    "dca": ({"every": 12, "size": 250_000, "steps": 4, "take": 2000}, 3910, 0, 80),
}


def candles(seed: int, n: int) -> dict[str, Any]:
    """Return `n` candles of a random walk, in tenths of a thousandth of the first price."""
    rng, price, rows = random.Random(seed), 1_000_000, []
    drift = 0
    for k in range(n):
        if k % 20 == 0:
            drift = rng.randint(-350, 400)
        opened = price
        steps = [drift // 4 + rng.randint(-900, 900) for _ in range(4)]
        path = [opened]
        for step in steps:
            path.append(path[-1] + step)
        price = path[-1]
        rows.append((opened, max(path), min(path), price))
    prices = np.array(rows) * (100 * UNIT // 1_000_000)
    columns = {name: prices[:, k] for k, name in enumerate(("open", "high", "low", "close"))}
    return {"t": START + np.arange(n) * MINUTE_MS, **columns, "volume": np.ones(n, dtype=np.int64)}


def picture(name: str) -> str:
    """Return the picture of a strategy as SVG."""
    params, seed, first, n = PICTURES[name]
    columns = candles(seed, n)
    minutes = CandleColumns(*[[columns[key]] for key in ("t", "open", "high", "low", "close", "volume")])
    span = (START, START + n * MINUTE_MS)
    spec = resolve(symbol="X", strategy=name, span=span, params=params)
    chart = order_chart(spec, minutes, build(name, dict(spec.params)), START + first * MINUTE_MS, span[1])
    return Drawing({key: column[first:] for key, column in columns.items()}, chart).svg(name, params)


class Drawing:
    """Candles with the lines of orders and levels, and the fills."""

    def __init__(self, columns: dict[str, Any], chart: OrderChart) -> None:
        self.columns, self.chart = columns, chart
        self.n = len(columns["t"])
        prices = [*columns["high"].tolist(), *columns["low"].tolist()]
        prices += [line.price for line in chart.lines]
        pad = (max(prices) - min(prices)) // 20
        self.top, self.bottom = max(prices) + pad, min(prices) - pad
        self.step = (WIDTH - LEFT - RIGHT) / self.n

    def x(self, ms: int) -> float:
        return LEFT + (ms - int(self.columns["t"][0])) / MINUTE_MS * self.step

    def y(self, price: int) -> float:
        return TOP + (self.top - price) / (self.top - self.bottom) * (HEIGHT - TOP - BOTTOM)

    def svg(self, name: str, params: dict[str, Any]) -> str:
        output = " ".join(f"{key}={value}" for key, value in params.items())
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            'font-size="11" paint-order="stroke" stroke-linejoin="round">',
            "<style>text{stroke:#ffffff;stroke-width:3px}</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="18" fill="{INK}"><tspan font-weight="bold">{name}</tspan> {output}</text>',
            *self.scale(),
            *self.bars(),
            *map(self.line, self.chart.lines),
            *self.labels(),
            *self.fills(),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def scale(self) -> list[str]:
        found = []
        step = UNIT if self.top - self.bottom > 2 * UNIT else UNIT // 2
        for price in range(-(-self.bottom // step) * step, self.top, step):
            y = self.y(price)
            found.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eeeeee"/>')
            found.append(
                f'<text x="{WIDTH - 4}" y="{y + 4:.1f}" fill="{FAINT}" text-anchor="end">{price / UNIT:g}</text>'
            )
        return found

    def bars(self) -> list[str]:
        found = []
        for t, open_, high, low, close in zip(*(self.columns[key].tolist() for key in COLUMNS), strict=True):
            x = self.x(t) + self.step / 2
            fill = "#ffffff" if close >= open_ else "#8a8a8a"
            upper, lower = sorted((self.y(open_), self.y(close)))
            found.append(f'<path d="M{x:.1f} {self.y(high):.1f}V{self.y(low):.1f}" stroke="#8a8a8a"/>')
            found.append(
                f'<rect x="{x - self.step * 0.3:.1f}" y="{upper:.1f}" width="{self.step * 0.6:.1f}" '
                f'height="{max(1.0, lower - upper):.1f}" fill="{fill}" stroke="#8a8a8a"/>'
            )
        return found

    def line(self, line: OrderLine) -> str:
        y, dash = self.y(line.price), ' stroke-dasharray="3 2"' if line.kind == "stop" else ""
        return (
            f'<line x1="{self.x(line.start_ms):.1f}" x2="{self.x(line.end_ms):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{color(line)}" stroke-width="1.4"{dash}/>'
        )

    def labels(self) -> list[str]:
        """Name each order once: where it first stands, and each level where it begins."""
        found, output = [], set()
        for line in self.chart.lines:
            if line.key not in output:
                output.add(line.key)
                x, y = self.x(line.start_ms) + 2, self.y(line.price) - 3
                found.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{color(line)}">{line.key}</text>')
        return found

    def fills(self) -> list[str]:
        found = []
        for fill in self.chart.fills:
            x, y, way = self.x(fill.t) + self.step / 2, self.y(fill.price), 1 if fill.after > fill.before else -1
            ink = BUY if way > 0 else SELL
            points = f"{x - 5:.1f},{y + way * 8:.1f} {x + 5:.1f},{y + way * 8:.1f} {x:.1f},{y:.1f}"
            found.append(f'<polygon points="{points}" fill="{ink}" stroke="#ffffff"/>')
            ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="none" stroke="{SELL}"/>' if fill.ambiguous else ""
            found.append(ring)
            found.append(
                f'<text x="{x:.1f}" y="{y + way * 20 + 3:.1f}" fill="{ink}" text-anchor="middle">{fill.what}</text>'
            )
        return [one for one in found if one]


COLUMNS = ("t", "open", "high", "low", "close")


def color(line: OrderLine) -> str:
    """Return the color of a line: by its side, or that of a stop or target."""
    if line.kind == "level":
        return STOP if line.key == "stop" else TAKE
    return BUY if line.side > 0 else SELL


if __name__ == "__main__":
    for name in PICTURES:
        (DOCS / f"orders-{name.replace('_', '-')}.svg").write_text(picture(name))
