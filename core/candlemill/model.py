"""What is asked for: a request as people write it, and the spec as the machine keeps it.

Everything here is values in, values out. Times are UTC milliseconds, money is scaled by 10^8, rates are ppm.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from candlemill.engine.tape import MINUTE_MS
from candlemill.errors import BadInput
from candlemill.strategies import REGISTERED, Strategy, build, parameter_fields, source_digest
from candlemill.strategies.schedule import Scheduled

SCALE = 100_000_000
TIMEFRAME_LIMIT = 10_080  # minutes: one week
SETS_LIMIT = 1_000_000
LEGS_LIMIT = 256
SPEC_BYTES_LIMIT = 32 * 1024  # a spec travels in every task's event, and an event is at most 64 KiB
FIRST_YEAR, LAST_YEAR = 2009, 2099
FIRST_MS = 1_230_768_000_000  # 2009-01-01
LAST_MS = 4_102_444_800_000  # 2100-01-01

DEFAULT_CAPITAL = 10_000 * SCALE

Ppm = Annotated[int, Meta(ge=0, le=1_000_000)]
FeePpm = Annotated[int, Meta(ge=-100_000, le=1_000_000)]  # negative: a rebate
Amount = Annotated[int, Meta(ge=1, le=2**62)]
ParamValue = int | float | bool | str


class Leg(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `start` (ms) on, the strategy runs with these parameters."""

    start: Annotated[int, Meta(ge=FIRST_MS, le=LAST_MS)]
    params: dict[str, ParamValue]


class WalkForward(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a walk-forward goes: spans like 90d or 6mo, and what sets are chosen by."""

    train: Annotated[str, Meta(max_length=16)] = "6mo"
    test: Annotated[str, Meta(max_length=16)] = "1mo"
    anchored: bool = False
    score: Literal["sharpe_ratio", "sortino_ratio", "total_pnl"] = "sharpe_ratio"


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job, fully resolved. Two specs with the same bytes on the same candles have the same result.

    `params` are complete (defaults filled in) unless `grid` varies them; `grid` maps a parameter to its values. A
    `schedule` has parameter sets for one time after the other instead.
    `maker_fee` None is the same as `fee`; `capital` None, with fixed sizing only, is what the job's quantity costs at
    the first open. `volume_scale` is the symbol's where `volume_share` limits trades, else 0.
    """

    symbol: Annotated[str, Meta(min_length=1, max_length=64)]
    strategy: Annotated[str, Meta(min_length=1, max_length=64)]
    params: dict[str, ParamValue]
    grid: dict[str, list[ParamValue]] = {}
    schedule: Annotated[list[Leg], Meta(max_length=LEGS_LIMIT)] = []
    start: Annotated[int, Meta(ge=FIRST_MS, le=LAST_MS)]
    end: Annotated[int, Meta(ge=FIRST_MS, le=LAST_MS)]
    fee: FeePpm = 1000
    maker_fee: FeePpm | None = None
    slippage: Ppm = 0
    stop_loss: Ppm = 0
    take_profit: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    trailing_stop: Ppm = 0
    fill: Literal["next_open", "close"] = "next_open"
    sizing: Literal["fixed", "notional", "compound"] = "fixed"
    quantity: Amount = SCALE
    capital: Amount | None = None
    notional: Amount | None = None
    volume_share: Ppm = 0
    volume_scale: Annotated[int, Meta(ge=0, le=10**18)] = 0
    funding: bool = False
    timeframe: Annotated[int, Meta(ge=1, le=TIMEFRAME_LIMIT)] = 1

    def __post_init__(self) -> None:
        if self.quantity != SCALE and self.sizing != "fixed":
            raise ValueError(f"quantity belongs to sizing fixed; with {self.sizing} give the capital or the notional")
        if self.notional is not None and self.sizing != "notional":
            raise ValueError(f"notional={self.notional} needs sizing notional, not {self.sizing}")
        if self.volume_share and self.sizing == "compound":
            raise ValueError("sizing compound trades all of its equity: volume_share limits fixed and notional only")

    @property
    def minutes(self) -> int:
        return (self.end - self.start) // MINUTE_MS

    @property
    def combinations(self) -> int:
        """How many points the grid has, valid or not; 1 without a grid."""
        return math.prod(len(values) for values in self.grid.values())

    def single(self, params: dict[str, ParamValue]) -> "Spec":
        """The spec of one point of the grid, as if it had been asked for alone."""
        return msgspec.structs.replace(self, params=params, grid={})

    def to_json(self) -> bytes:
        """Canonical bytes: equal specs, equal bytes."""
        return msgspec.json.encode(self, order="sorted")


# Here and elsewhere: msgspec works out what a type is when it first meets it, and two threads that meet it at once can
# crash the process. A decoder that is made while modules are imported is before all threads.
_specs = msgspec.json.Decoder(Spec)


def spec_from_json(data: bytes | str) -> Spec:
    try:
        return _specs.decode(data)
    except msgspec.DecodeError as error:
        raise BadInput(f"not a job: {error}") from None


def grid_points(spec: Spec, first: int, count: int) -> Iterator[tuple[int, dict[str, ParamValue], Strategy]]:
    """The valid parameter sets among grid points `first` to `first + count - 1`, each with its index.

    A point that the strategy refuses (fast >= slow) is passed over. Points are numbered with the parameters in
    alphabetical order: a JSON object keeps no order of its own.
    """
    if spec.schedule:
        if first == 0:
            yield 0, {}, _scheduled(spec)
        return
    names = sorted(spec.grid)
    for index in range(first, min(first + count, spec.combinations)):
        values = _grid_point([spec.grid[name] for name in names], index)
        try:
            strategy = build(spec.strategy, {**spec.params, **dict(zip(names, values, strict=True))})
        except BadInput:
            if not names:
                raise
            continue
        yield index, parameters_of(strategy), strategy


def _scheduled(spec: Spec) -> Scheduled:
    strategies = tuple(build(spec.strategy, dict(leg.params)) for leg in spec.schedule)
    return Scheduled(spec.timeframe, tuple(leg.start for leg in spec.schedule), strategies)


def _grid_point(axes: list[list[ParamValue]], index: int) -> list[ParamValue]:
    """The `index`-th combination, the last axis turning fastest."""
    values = []
    for axis in reversed(axes):
        index, k = divmod(index, len(axis))
        values.append(axis[k])
    return values[::-1]


def parameters_of(strategy: Strategy) -> dict[str, ParamValue]:
    """All parameters by their public names, defaults filled in."""
    return {name: getattr(strategy, field) for name, field in parameter_fields(type(strategy)).items()}


def resolve(
    *,
    symbol: str,
    strategy: str,
    span: tuple[int, int],
    params: Mapping[str, object],
    grid: Mapping[str, Sequence[object]] | None = None,
    **rest: object,
) -> Spec:
    """A checked spec: parameters typed, defaults filled in, every grid value valid for its parameter.

    Raises BadInput with the value, the limit and the way out.
    """
    grid = grid or {}
    if rest.get("schedule"):
        rest["schedule"] = _legs(strategy, rest["schedule"], span, params, grid)
    both = set(params) & set(grid)
    if both:
        raise BadInput(f"parameter {sorted(both)[0]!r} is given both as a value and as a grid: keep one")
    size = math.prod(len(values) for values in grid.values())
    if size > SETS_LIMIT:
        raise BadInput(f"the grid has {size:,} points, the limit is {SETS_LIMIT:,}: use wider steps or several sweeps")
    chosen = {name: _typed_values(strategy, name, [value])[0] for name, value in params.items()}
    typed = {name: list(dict.fromkeys(_typed_values(strategy, name, values))) for name, values in grid.items()}
    if rest.get("schedule"):
        fixed: dict[str, ParamValue] = {}
    elif typed:
        fixed = _typed_fixed(strategy, chosen, typed)
    else:
        fixed = parameters_of(build(strategy, dict(chosen)))
    given = {"symbol": symbol, "strategy": strategy, "params": fixed, "grid": typed, "start": span[0], "end": span[1]}
    given |= _completed(rest)
    try:
        spec = msgspec.convert(given, Spec)
    except msgspec.ValidationError as error:
        raise BadInput(_refusal(error, given)) from None
    if len(spec.to_json()) > SPEC_BYTES_LIMIT:
        raise BadInput(f"the grid's values take more than {SPEC_BYTES_LIMIT:,} bytes: use several sweeps")
    return spec


def _legs(strategy: str, given: object, span: tuple[int, int], *others: object) -> list[Leg]:
    """A schedule with complete parameters. Raises BadInput."""
    try:
        legs = msgspec.convert(given, list[Leg])
    except msgspec.ValidationError as error:
        raise BadInput(f"schedule: {error}") from None
    if any(others):
        raise BadInput("a schedule has the parameters of each time: give neither params nor a grid beside it")
    starts = [leg.start for leg in legs]
    if starts != sorted(set(starts)) or not span[0] <= starts[0] <= starts[-1] < span[1]:
        raise BadInput("the schedule's starts are not ascending within the range")
    return [Leg(leg.start, parameters_of(build(strategy, dict(leg.params)))) for leg in legs]


def _completed(rest: dict[str, object]) -> dict[str, object]:
    """What means the same is written the same way: it has one job id then."""
    sizing, fee = rest.get("sizing", "fixed"), rest.get("fee", 1000)
    if rest.get("maker_fee") == fee:
        rest["maker_fee"] = None
    if sizing != "fixed" and rest.get("capital") is None:
        rest["capital"] = DEFAULT_CAPITAL
    if sizing == "notional" and rest.get("notional") is None:
        rest["notional"] = rest["capital"]
    return rest


def _refusal(error: msgspec.ValidationError, given: Mapping[str, object]) -> str:
    """What msgspec says of a field, the limit, with the value that broke it."""
    text = str(error)
    choice = re.fullmatch(r"Invalid enum value .* - at `\$\.(\w+)`", text)
    if choice is not None:
        known = ", ".join(get_args(get_type_hints(Spec)[choice[1]]))
        return f"{choice[1]}={given[choice[1]]!r} is none of {known}"
    found = re.fullmatch(r"Expected (.*) - at `\$\.(\w+).*`", text)
    if found is None or found[2] not in given:
        return text
    return f"{found[2]}={given[found[2]]!r}: expected {found[1].replace('`', '')}"


def _typed_values(strategy: str, name: str, values: Sequence[object]) -> list[ParamValue]:
    """Values of the parameter `name` in its own type, each tried alone: how they relate to others shows later.

    Raises UnknownName for the strategy and the parameter, BadInput for a value out of bounds.
    """
    if strategy not in REGISTERED:
        build(strategy, {})  # raises UnknownName with a suggestion
    hints = {f.encode_name: f.type for f in msgspec.structs.fields(REGISTERED[strategy])}
    if name not in hints:
        build(strategy, {name: values[0]})  # raises UnknownName with a suggestion
    typed = []
    for value in values:
        try:
            typed.append(msgspec.convert(value, hints[name], strict=False))
        except msgspec.ValidationError as error:
            wanted = str(error).removeprefix("Expected ").replace("`", "")
            raise BadInput(f"{strategy}: {name}={value!r}: expected {wanted}") from None
    return typed


def _typed_fixed(
    strategy: str, params: dict[str, ParamValue], grid: dict[str, list[ParamValue]]
) -> dict[str, ParamValue]:
    """The parameters beside a grid, typed by the first grid point that is valid."""
    first_error: BadInput | None = None
    for values in itertools.islice(itertools.product(*grid.values()), 100_000):
        try:
            found = parameters_of(build(strategy, {**params, **dict(zip(grid, values, strict=True))}))
        except BadInput as error:
            first_error = first_error or error
            continue
        return {name: value for name, value in found.items() if name not in grid}
    raise first_error or BadInput("the grid is empty: give every --grid at least one value")


# -- what people write ---------------------------------------------------------------------------------------------

_RANGE = re.compile(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?(?:[T ](\d{2}):(\d{2})(?::00)?Z?)?")


def parse_range(text: str) -> tuple[int, int]:
    """`2023`, `2023-05`, `2023-05-07`, `A..B` with either end one of these or an ISO minute; ends are inclusive.

    Returns start (included) and end (excluded) in milliseconds.
    """
    first, dots, last = text.partition("..")
    start, stop = _span(first, text)
    if dots:
        stop = _span(last, text)[1]
    if stop <= start:
        raise BadInput(f"range {text!r} is empty or reversed: its end comes before its start; swap them")
    return start, stop


def _span(text: str, whole: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text.strip())
    if not found:
        raise BadInput(f"range {whole!r} is not like 2023, 2023-05, 2023-05-07, 2023-01-01..2023-06-30 or all")
    year, month, day, hour, minute = (int(x) if x else None for x in found.groups())
    if not FIRST_YEAR <= (year or 0) <= LAST_YEAR:
        raise BadInput(f"range {whole!r}: the year {year} is not between {FIRST_YEAR} and {LAST_YEAR}")
    try:
        begin = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, tzinfo=UTC)
    except ValueError as error:
        raise BadInput(f"range {whole!r}: {error}") from None
    if minute is not None and day is None:
        raise BadInput(f"range {whole!r}: a minute needs its full date, like 2023-05-07T12:30")
    if minute is not None:
        end = begin + timedelta(minutes=1)
    elif day is not None:
        end = begin + timedelta(days=1)
    elif month is not None:
        end = datetime(begin.year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    else:
        end = datetime(begin.year + 1, 1, 1, tzinfo=UTC)
    return to_ms(begin), to_ms(end)


def to_ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def iso(ms: int) -> str:
    """A moment as ISO text to the minute."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")


_TIMEFRAME_UNITS = {"m": 1, "h": 60, "d": 1440, "w": 10_080}


def parse_timeframe(text: str) -> int:
    """`1m`, `15m`, `4h`, `1d`, `1w` in minutes."""
    found = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    minutes = int(found[1]) * _TIMEFRAME_UNITS[found[2]] if found else 0
    if not 1 <= minutes <= TIMEFRAME_LIMIT:
        raise BadInput(f"timeframe {text!r} is not between 1m and 1w: write it like 5m, 4h or 1d")
    return minutes


_DECIMAL = re.compile(r"([0-9]{1,20})(?:\.([0-9]*))?")


def parse_decimal(text: str, what: str) -> int:
    """Positive decimal text times 10^8, exactly. Raises BadInput for more than 8 decimals, and beyond 2^62."""
    limits = f"between 0.00000001 and {2**62 // SCALE}"
    found = _DECIMAL.fullmatch(text)
    if not found:
        raise BadInput(f"{what} {text!r} is not a decimal number {limits}, like 0.5")
    decimals = (found[2] or "").rstrip("0")
    if len(decimals) > 8:
        raise BadInput(f"{what} {text!r} has more than 8 decimals")
    scaled = int(found[1]) * SCALE + int(decimals.ljust(8, "0"))
    if not 1 <= scaled <= 2**62:
        raise BadInput(f"{what} {text!r} is not {limits}")
    return scaled


def parse_grid(texts: list[str]) -> dict[str, list[ParamValue]]:
    """`fast=5:50:5` (end included) and `slow=20,50,100`."""
    grid: dict[str, list[ParamValue]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise BadInput(f"grid {text!r} is not like fast=5:50:5 or slow=20,50,100")
        if name in grid:
            raise BadInput(f"grid of {name!r} is given twice: join its values with commas")
        grid[name] = grid_values(text, values)
    return grid


def grid_values(text: str, values: str) -> list[ParamValue]:
    """`5:50:5` or `20,50,100`; `text` is what messages call it. Raises BadInput."""
    if ":" not in values:
        parts = list(dict.fromkeys(part.strip() for part in values.split(",")))
        if "" in parts:
            raise BadInput(f"grid {text!r} has an empty value")
        return list(parts)
    try:
        begin, end, *step = [int(x) for x in values.split(":")]
        width = step[0] if step else 1
        if len(step) > 1 or width < 1 or end < begin:
            raise ValueError
    except ValueError:
        raise BadInput(f"grid {text!r}: a span is START:END or START:END:STEP in whole numbers, START <= END") from None
    count = (end - begin) // width + 1
    if count > SETS_LIMIT:
        raise BadInput(f"grid {text!r} has {count:,} values, the limit is {SETS_LIMIT:,}")
    if 2 * count > SPEC_BYTES_LIMIT:  # a digit and a comma each: `resolve` would refuse them after a second's work
        raise BadInput(f"grid {text!r} has {count:,} values, more than {SPEC_BYTES_LIMIT:,} bytes: use several sweeps")
    return list(range(begin, end + 1, width))


# -- identity ------------------------------------------------------------------------------------------------------


@cache
def code_digest() -> str:
    """SHA-256 over the sources that decide a result: the engine, the strategies, the figures made of a summary."""
    root = Path(__file__).parent
    sources = [*sorted((root / "engine").glob("*.py")), *sorted((root / "strategies").glob("*.py"))]
    digest = hashlib.sha256()
    for path in [*sources, *(root / name for name in ("reduce.py", "work.py"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def job_id(spec: Spec, data_digest: str) -> str:
    """The content address of a job's result: what is asked, of which candles, by which code."""
    parts = [spec.to_json(), data_digest.encode(), *_sources(spec.strategy)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def code_key(strategy: str) -> str:
    """What identifies the code that runs a strategy."""
    return hashlib.sha256(b"\0".join(_sources(strategy))).hexdigest()[:16]


def _sources(strategy: str) -> list[bytes]:
    """Digests of the sources that decide a strategy's results: a plugin's own counts for its own jobs only."""
    own = source_digest(strategy)
    return [code_digest().encode(), *([own.encode()] if own else [])]
