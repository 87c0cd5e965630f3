"""The strategy under test: all calls of its code are made here, and their results are validated before use."""

import traceback
from typing import Any, TypeVar

import msgspec
import numpy as np

from candlemill.checks.markets import Market
from candlemill.engine.candles import Bars
from candlemill.engine.signals import Desired
from candlemill.errors import CandlemillError
from candlemill.strategies import LOOKBACK_LIMIT, Strategy

ORDINARY_PRICE = 10**15  # scaled: ten million; a strategy may refuse only prices above it
Params = dict[str, Any]
S = TypeVar("S", bound=Strategy)


class Broken(Exception):
    """The strategy raised an error or returned an invalid result."""


class Refused(Exception):
    """The strategy refused these numbers as too large. This is allowed, because it prevents silent overflow."""


class Run(msgspec.Struct, frozen=True):
    """A copy of the strategy's decisions for decision bars `lo` to `hi - 1` of `bars`."""

    bars: Bars
    lo: int
    desired: Desired
    memory: bytes


class Subject(msgspec.Struct, frozen=True):
    """A strategy with its parameters, on decision bars of `k` minutes."""

    strategy: Strategy
    params: Params
    k: int = 1

    @property
    def reads(self) -> list[str]:
        return sorted(self.strategy.needs())

    def lookback(self) -> int:
        try:
            found = self.strategy.lookback()
        except Exception as error:
            raise Broken(f"lookback() fails: {one_line_of(error)}") from error
        if not isinstance(found, int) or not 0 <= found <= LOOKBACK_LIMIT:
            raise Broken(f"lookback() is {found!r}, not a whole number from 0 to {LOOKBACK_LIMIT:,}")
        return found

    def bars(self, market: Market, skip_first: bool = False) -> Bars:
        return market.bars(self.k, self.reads, skip_first)

    def run(self, market: Market, hi: int | None = None) -> Run:
        """Return the decisions of a job that begins with the market's first candle, up to decision bar `hi`."""
        bars = self.bars(market)
        return self.decide(bars, 0, bars.n if hi is None else hi, b"")

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> Run:
        """Call `decide` and validate its result. Raises Broken, and Refused for unusually large prices or volumes."""
        try:
            with np.errstate(all="ignore"):
                answer = self.strategy.decide(bars, lo, hi, memory)
        except OverflowError as error:
            if bars.top <= ORDINARY_PRICE and (not len(bars.volume) or int(bars.volume.max()) < 1 << 50):
                raise Broken(f"decide() fails: {one_line_of(error)}, at prices up to {bars.top} (scaled)") from error
            raise Refused(str(error)) from None
        except Exception as error:
            place = f"for bars {lo} to {hi - 1} of {bars.n}" if hi > lo else f"for no bar, of {bars.n}"
            raise Broken(f"decide() fails: {one_line_of(error)}, {place}") from error
        return Run(bars, lo, *_checked(answer, hi - lo))

    def answer(self, market: Market) -> tuple[bytes, bytes]:
        """Return the decisions and the memory as bytes, for another process."""
        found = self.run(market)
        return found.desired.tobytes(), found.memory


def _checked(answer: Any, n: int) -> tuple[Desired, bytes]:
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise Broken(f"decide() returns {type(answer).__name__}, not (decisions, memory)")
    desired, memory = answer
    if not isinstance(desired, np.ndarray) or desired.dtype != np.int8:
        kind = desired.dtype if isinstance(desired, np.ndarray) else type(desired).__name__
        raise Broken(f"decisions are {kind}, not an array of int8")
    if desired.shape != (n,):
        raise Broken(f"decisions have the shape {desired.shape} for {n:,} bars: one for each bar is wanted")
    if n and not -1 <= int(desired.min()) <= int(desired.max()) <= 1:
        wrong = int(desired.max() if int(desired.max()) > 1 else desired.min())
        raise Broken(f"a decision is {wrong}, not -1, 0 or 1")
    if not isinstance(memory, bytes):
        raise Broken(f"the memory is {type(memory).__name__}, not bytes")
    try:
        memory.decode()
    except UnicodeDecodeError:
        raise Broken(f"the memory {memory[:40]!r} is no UTF-8 text: it travels in events") from None
    return desired.copy(), memory


def one_line_of(error: BaseException) -> str:
    """Return the error in one line, with its place in the code outside the libraries."""
    if isinstance(error, CandlemillError):
        return str(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    place = f" (line {frames[-1].lineno} of {frames[-1].filename.rsplit('/', 1)[-1]})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{place}"


# -- parameter sets ------------------------------------------------------------------------------------------------


def varied(strategy: S, pinned: frozenset[str], rng: np.random.Generator) -> S:
    """Return the strategy with other values of the parameters that are not `pinned`.

    The values are within their bounds and near the given ones. Returns the strategy itself if it accepts none.
    """
    kind = type(strategy)
    fields = msgspec.structs.fields(kind)
    types = {field.name: field.type for field in msgspec.inspect.type_info(kind).fields}  # type: ignore[attr-defined]
    limit = max(4 * strategy.lookback(), 200)
    for _ in range(20):
        chosen = {f.encode_name: getattr(strategy, f.name) for f in fields}
        for field in fields:
            if field.encode_name not in pinned:
                chosen[field.encode_name] = _other(chosen[field.encode_name], types[field.name], rng)
        try:
            found = msgspec.convert(chosen, kind)
            if found.lookback() <= limit:
                return found
        except Exception:  # invalid parameters, for example fast >= slow
            continue
    return strategy


def _other(value: Any, kind: Any, rng: np.random.Generator) -> Any:
    if isinstance(kind, msgspec.inspect.BoolType):
        return bool(rng.integers(0, 2))
    if isinstance(kind, msgspec.inspect.LiteralType):
        return kind.values[int(rng.integers(0, len(kind.values)))]
    if isinstance(kind, msgspec.inspect.IntType):
        return _other_int(value, kind, rng)
    if isinstance(kind, msgspec.inspect.FloatType):
        found = value * float(rng.uniform(0.5, 2.0))
        low, high = kind.ge if kind.ge is not None else kind.gt, kind.le if kind.le is not None else kind.lt
        return min(max(found, found if low is None else low), found if high is None else high)
    return value


def _other_int(value: int, kind: Any, rng: np.random.Generator) -> int:
    """Return another whole number; a small one only if the parameter has bounds that allow it."""
    span = (value // 2, 2 * value)
    if kind.ge is not None and rng.random() < 0.5:
        span = (kind.ge, kind.ge + 20)
    found = int(rng.integers(min(span), max(span) + 1)) if value else int(rng.choice([0, 1_000, 20_000]))
    low, high = (kind.ge if kind.ge is not None else found), (kind.le if kind.le is not None else found)
    step = kind.multiple_of or 1
    return max(low, min(high, found)) // step * step


def params_of(strategy: Strategy) -> Params:
    """Return the strategy's parameters by their public names."""
    return {field.encode_name: getattr(strategy, field.name) for field in msgspec.structs.fields(strategy)}
