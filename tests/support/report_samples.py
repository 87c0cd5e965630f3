"""Traces, sweeps and walk-forwards for the reports' tests: seeded random candles and simple fills."""

from itertools import product
from typing import Any

import msgspec
import numpy as np
from candlemill.backtests.metrics import metrics
from candlemill.backtests.replay import Replay
from candlemill.backtests.result import SHARPE_RECIPE, sharpe, sortino
from candlemill.backtests.spec import Spec
from candlemill.backtests.trades import Reason, Trades
from candlemill.engine.candles import DAY_MS, MINUTE_MS, Column
from candlemill.units import SCALE
from numpy.typing import NDArray

START = 1_672_531_200_000  # 2023-01-01
TICK = SCALE // 100
NONE = np.zeros(0, np.int64)


def candles(bars: int, seed: int) -> tuple[Column, Column, Column, Column]:
    """Open, high, low and close of a random walk in ticks, with calm and wild days."""
    rng = np.random.default_rng(seed)
    wild = np.repeat(np.exp(rng.normal(0, 0.5, bars // 1440 + 1)), 1440)[:bars]
    path = 30_000 * np.exp(np.cumsum(rng.standard_t(4, bars) * wild * 5e-4 + 1e-6))
    close = np.maximum(np.round(path * 100), 1).astype(np.int64)
    open_ = np.concatenate([close[:1], close[:-1]])
    reach = np.abs(rng.normal(0, 4e-4, (2, bars))) * close
    high = np.maximum(open_, close) + reach[0].astype(np.int64)
    low = np.maximum(np.minimum(open_, close) - reach[1].astype(np.int64), 1)
    return open_ * TICK, high * TICK, low * TICK, close * TICK


def average(values: Column, length: int) -> NDArray[np.float64]:
    sums = np.cumsum(values.astype(np.float64))
    out = np.full(len(values), np.nan)
    out[length - 1 :] = (sums[length - 1 :] - np.concatenate([[0], sums[:-length]])) / length
    return out


def trace(
    bars: int = 20_000, *, fast: int = 10, slow: int = 50, fee: int = 50, seed: int = 1, symbol: str = "BTCUSDT",
    short: bool = True, gap: int = 0, quiet: bool = False, start: int = START, **changes: Any,
) -> Replay:  # fmt: skip
    """A crossover of averages that trades one unit at the next open; `gap` leaves minutes out, `quiet` never trades."""
    o, h, lo, c = candles(bars, seed)
    t = start + MINUTE_MS * np.arange(bars, dtype=np.int64)
    t[bars // 2 :] += gap * MINUTE_MS
    quick, slower = average(c, fast), average(c, slow)
    desired = np.where(quick > slower, 1, np.where((quick < slower) & short, -1, 0)).astype(np.int8)
    position = np.concatenate([np.zeros(1, np.int8), desired[:-1]]) * np.int8(not quiet)
    before = np.concatenate([np.zeros(1, np.int8), position[:-1]])
    change = (position - before).astype(np.int64)
    fees = np.abs(change) * (o * fee // 1_000_000)
    equity = np.cumsum(-change * o - fees) + position * c
    trades = _trades(t, o, h, lo, position, fee, gap, bars)
    days, last = np.unique(t // DAY_MS, return_index=True)
    daily = np.diff(np.concatenate([[0], equity[np.concatenate([last[1:] - 1, [bars - 1]])]]))
    spec = Spec(
        symbol=symbol, strategy="sma_cross", params={"fast": fast, "slow": slow, "allow_short": short},
        start=start, end=int(t[-1]) + MINUTE_MS, fee=fee, **{"account": "units"} | changes,
    )  # fmt: skip
    result = _result(spec, t, equity, position, fees, change, daily, trades, days * DAY_MS, int(o[0]), int(c[-1]))
    return Replay(spec, result, int(o[0]), t, o, h, lo, c, equity, position, days * DAY_MS, daily, daily, trades)


def _trades(
    t: Column, o: Column, h: Column, lo: Column, position: NDArray[np.int8], fee: int, gap: int, bars: int
) -> Trades:
    change = np.flatnonzero(np.diff(position, prepend=np.int8(0)))
    entry, leave = change[:-1], change[1:]
    held = position[entry] != 0
    entry, leave = entry[held], leave[held]
    side = position[entry].astype(np.int64)
    buy, sell = o[entry], o[leave]
    paid = buy * fee // 1_000_000 + sell * fee // 1_000_000
    edges = np.stack([entry, leave], axis=1).ravel()
    top = np.maximum.reduceat(h, edges)[::2] if len(edges) else NONE
    bottom = np.minimum.reduceat(lo, edges)[::2] if len(edges) else NONE
    worst = np.where(side > 0, bottom - buy, buy - top)
    best = np.where(side > 0, top - buy, buy - bottom)
    over = (entry < bars // 2) & (leave >= bars // 2) & (gap > 0)
    return Trades(
        entry_bar=entry, exit_bar=leave, entry_t=t[entry], exit_t=t[leave], side=side,
        quantity=np.full(len(side), SCALE), entry_price=buy, exit_price=sell, profit=side * (sell - buy) - paid,
        fees=paid, funding=0 * paid, borrow=0 * paid, mae=np.minimum(worst, 0), mfe=np.maximum(best, 0),
        bars=leave - entry, reason=np.where(np.arange(len(side)) % 9 == 8, Reason.STOP, Reason.SIGNAL), gap=over,
        ambiguous=np.zeros(len(side), np.bool_),
    )  # fmt: skip


def _result(
    spec: Spec, t: Column, equity: Column, position: NDArray[np.int8], fees: Column, change: Column, daily: Column,
    trades: Trades, dates: Column, o: int, c: int,
) -> dict[str, Any]:  # fmt: skip
    days = [int(x) for x in daily]
    losses = sum(x * x for x in days if x < 0)
    total, squares = int(equity[-1]), sum(x * x for x in days)
    won, lost = trades.profit[trades.profit > 0], trades.profit[trades.profit < 0]
    peak = np.maximum.accumulate(np.maximum(equity, 0))
    result: dict[str, Any] = {
        "job_id": "5f3a" * 8, "strategy_id": spec.strategy, "symbol": spec.symbol, "params": spec.params,
        "start": spec.start, "end": spec.end, "bars": len(t), "missing_minutes": spec.minutes - len(t),
        "total_pnl": total, "sharpe_ratio": sharpe(total, squares, len(days)),
        "sortino_ratio": sortino(total, losses, len(days)), "max_drawdown": int((peak - equity).max()),
        "trades": len(trades), "wins": len(won), "gross_profit": int(won.sum()), "gross_loss": -int(lost.sum()),
        "fees": int(fees.sum()), "fills": int(np.abs(change).sum()), "exposure_bars": int((position != 0).sum()),
        "open_position": int(position[-1]), "ambiguous_bars": 0, "trades_over_gaps": int(trades.gap.sum()),
        "days": len(days), "sharpe_recipe": SHARPE_RECIPE, "spec": msgspec.to_builtins(spec),
        "data_digest": "0d" * 32, "result_digest": "1e" * 32, "slices": 4, "repaired_slices": 1,
        "execution_time_ms": 321, "capital": o, "funding": 0, "unfilled": 0,
        "turnover": 2 * int(fees.sum()), "first_open": o, "last_close": c,
    }  # fmt: skip
    return {**result, "metrics": metrics(dates, daily, o, result)}


def sweep(sets: int = 240, *, extra: bool = False, guards: bool = True, seed: int = 5) -> dict[str, Any]:
    """A hill over `fast` and `slow`, noisy; `extra` varies a third parameter."""
    rng = np.random.default_rng(seed)
    base = trace(3_000)
    side = max(int((sets // (2 if extra else 1)) ** 0.5), 2)
    grid: dict[str, list[Any]] = {
        "fast": [5 + 5 * k for k in range(side)],
        "slow": [20 + 10 * k for k in range(side)],
        **({"allow_short": [False, True]} if extra else {}),
    }
    fixed = {name: value for name, value in base.spec.params.items() if name not in grid}
    spec = msgspec.structs.replace(base.spec, params=fixed, grid=grid)
    results = []
    for values in product(*grid.values()):
        params = {**fixed, **dict(zip(grid, values, strict=True))}
        if params["fast"] >= params["slow"]:
            continue
        hill = 1 - abs(params["fast"] / grid["fast"][-1] - 0.4) - abs(params["slow"] / grid["slow"][-1] - 0.5)
        ratio = int((hill + rng.normal(0, 0.4)) * SCALE)
        changed = {"total_pnl": ratio * 900, "sharpe_ratio": ratio, "sortino_ratio": ratio * 3 // 2, "params": params}
        changed["max_drawdown"] = int(abs(rng.normal(3000, 600)) * SCALE)
        changed["trades"] = 10_000 // params["slow"]
        results.append({**base.result, **changed})
    return {"job_id": "ab" * 16, "spec": spec, "results": results, "guards": GUARDS if guards else None}


def interval(middle: int) -> dict[str, int]:
    return {"actual": middle, "low": middle // 3, "median": middle, "high": middle * 2}


GUARDS = {
    "best": {"fast": 30, "slow": 160},
    "trials": 240, "rows": 240, "days": 365, "independent_trials": 31, "luck_sharpe": 162_000_000,
    "sharpe_ratio": 174_800_000, "probabilistic_sharpe": 97_120_000, "deflated_sharpe": 41_300_000,
    "deflated_sharpe_all": 18_000_000, "minimum_track_days": 410,
    "overfitting": {
        "sets": 240, "days": 365, "blocks": 16, "splits": 12_870, "probability": 38_250_000,
        "logits": [int(1500 * np.exp(-((k - 12.6) ** 2) / 18)) for k in range(24)], "slope": -31_000_000,
        "intercept": 70_000_000, "loss_probability": 22_000_000, "in_sample": 210_000_000, "out_of_sample": 64_000_000,
    },
    "stability": {
        "best": {"fast": 30, "slow": 160}, "figure": 174_800_000, "neighbours": 4, "profitable": SCALE,
        "mean": 46_000_000, "worst": 12_000_000, "plateau": 46_000_000,
    },
    "costs": {"fee": 50, "break_even_fee": 83, "table": [[0, 9_000 * SCALE], [50, 3_100 * SCALE]]},
    "bootstrap": {
        "seed": 1, "replicates": 2000, "block_days": 8, "level": 95_000_000, "loss": 7_000_000,
        "figures": {"sharpe_ratio": interval(174_800_000), "total_pnl": interval(1_572 * SCALE)},
    },
    "novel_figure": 123_456_789,
    "warnings": [
        "deflated Sharpe ratio 0.41, below 0.95: the best of 240 may be luck",
        "the best set stands alone: its neighbours make 0.46 of its figure",
    ],
}  # fmt: skip


def walk_forward(days: int = 120, folds: int = 8, *, guards: bool = True) -> dict[str, Any]:
    run = trace(days * 1440, fast=200, slow=900)
    width = days // folds * DAY_MS
    rng = np.random.default_rng(3)
    found = [
        {
            "train_start": START + (k - 2) * width, "train_end": START + k * width,
            "test_start": START + k * width, "test_end": START + (k + 1) * width,
            "params": {"fast": int(rng.integers(2, 20)) * 10, "slow": int(rng.integers(20, 90)) * 10},
            "in_sample": int(rng.normal(2.4, 0.4) * SCALE), "efficiency": 31_000_000,
            "out_of_sample": int(rng.normal(0.7, 1.2) * SCALE),
        }
        for k in range(folds)
    ]  # fmt: skip
    return {"folds": found, "trace": run, "guards": GUARDS if guards else None, "command": "candlemill walk-forward"}
