"""The positions that users of the peers compute: pandas on float closes, one line per rule."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Wanted = NDArray[np.int8]


def sma_cross(bars: pd.DataFrame, fast: int = 10, slow: int = 50, allow_short: bool = False) -> Wanted:
    return _signs(bars.Close.rolling(fast).mean() - bars.Close.rolling(slow).mean(), allow_short)


def momentum_v1(bars: pd.DataFrame, lookback: int = 1440, threshold: int = 0, allow_short: bool = False) -> Wanted:
    change = bars.Close.pct_change(lookback)
    return _signs(change.where(change.abs() > threshold / 1e6, 0), allow_short)


def donchian(bars: pd.DataFrame, entry: int = 480, exit: int = 240) -> Wanted:
    enter = bars.Close > bars.High.rolling(entry).max().shift()
    return _held(enter, bars.Close < bars.Low.rolling(exit).min().shift())


def buy_and_hold(bars: pd.DataFrame) -> Wanted:
    return np.ones(len(bars), dtype=np.int8)


def ema_cross(bars: pd.DataFrame, fast: int = 12, slow: int = 26, allow_short: bool = False) -> Wanted:
    return _signs(_ewm(bars.Close, fast) - _ewm(bars.Close, slow), allow_short)


def macd(bars: pd.DataFrame, fast: int = 12, slow: int = 26, signal: int = 9, allow_short: bool = False) -> Wanted:
    line = _ewm(bars.Close, fast) - _ewm(bars.Close, slow)
    return _signs(line - _ewm(line, signal), allow_short)


def rsi_reversion(bars: pd.DataFrame, length: int = 14, low: int = 30, exit: int = 50) -> Wanted:
    move = bars.Close.diff()
    gain, loss = (part.ewm(alpha=1 / length, adjust=False).mean() for part in (move.clip(0), -move.clip(upper=0)))
    rsi = 100 - 100 / (1 + gain / loss)
    return _held(rsi < low, rsi > exit)


def bollinger(bars: pd.DataFrame, length: int = 20, width: int = 200) -> Wanted:
    window = bars.Close.rolling(length)
    return _held(bars.Close > window.mean() + width / 100 * window.std(ddof=0), bars.Close < window.mean())


def zscore_reversion(bars: pd.DataFrame, length: int = 60, entry: int = 200, exit: int = 50) -> Wanted:
    window = bars.Close.rolling(length)
    score = (bars.Close - window.mean()) / window.std(ddof=0)
    return _held(score < -entry / 100, score > -exit / 100)


def time_of_day(bars: pd.DataFrame, start: int = 1320, end: int = 0) -> Wanted:
    minute = bars.index.hour * 60 + bars.index.minute
    inside = (minute >= start) & (minute < end) if start < end else (minute >= start) | (minute < end)
    return np.asarray(inside, dtype=np.int8)


def _ewm(values: pd.Series, span: int) -> pd.Series:
    return values.ewm(span=span, adjust=False).mean()


def _signs(values: pd.Series, allow_short: bool) -> Wanted:
    found = np.sign(values.fillna(0).to_numpy()).astype(np.int8)
    return found if allow_short else np.maximum(found, 0)


def _held(enter: pd.Series, leave: pd.Series) -> Wanted:
    """1 from an entry until an exit; where both are true the entry counts."""
    state = pd.Series(np.where(enter, 1.0, np.where(leave, 0.0, np.nan)), index=enter.index)
    return state.ffill().fillna(0).to_numpy().astype(np.int8)


USUAL: dict[str, Callable[..., Wanted]] = {
    rule.__name__: rule
    for rule in (
        sma_cross,
        momentum_v1,
        donchian,
        buy_and_hold,
        ema_cross,
        macd,
        rsi_reversion,
        bollinger,
        zscore_reversion,
        time_of_day,
    )
}


def wanted_by_users(name: str, bars: pd.DataFrame, params: dict[str, Any]) -> Wanted:
    return USUAL[name](bars, **params)
