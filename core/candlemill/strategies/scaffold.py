"""Templates of `candlemill new-strategy`: a working strategy, its test and a guide to the next steps."""

import importlib.util
from pathlib import Path

from candlemill.errors import BadInput
from candlemill.strategies.loader import name_of
from candlemill.strategies.registry import BUILT_IN, NAME

WINDOWED = '''"""{title}: say here what it does, and whose idea it is."""

from typing import Annotated

import numpy as np
from candlemill.engine.candles import Bars
from candlemill.strategies import Windowed
from msgspec import Meta
from numpy.typing import NDArray


class {kind}(Windowed, frozen=True):
    """Long while the close is above the mean of the `length` closes before it."""

    length: Annotated[int, Meta(ge=1, le=10_000, description="bars of the mean")] = 50

    def lookback(self) -> int:
        return self.length

    def positions(self, bars: Bars) -> NDArray[np.bool_]:
        sums = np.concatenate(([0], np.cumsum(bars.close)))  # prices are whole numbers, times 10^8: sums are exact
        out = np.zeros(bars.n, dtype=np.bool_)
        before = sums[self.length : -1] - sums[: -self.length - 1]
        out[self.length :] = bars.close[self.length :] * self.length > before
        return out
'''

STATEFUL = '''"""{title}: say here what it does, and whose idea it is."""

from typing import Annotated

import numpy as np
from candlemill.engine.candles import Bars
from candlemill.strategies import Stateful
from msgspec import Meta
from numpy.typing import NDArray

from {name}_loops import follow


class {kind}(Stateful, frozen=True):
    """Long while the close is above an exponential mean of the closes before it."""

    length: Annotated[int, Meta(ge=1, le=10_000, description="bars of the mean")] = 50

    def warm_up(self) -> int:
        return 25 * self.length  # bars after which the mean no longer shows where it began

    def start(self) -> tuple[float]:
        return (0.0,)

    def advance(self, state: tuple[float], bars: Bars, first: int) -> tuple[NDArray[np.uint8], tuple[float]]:
        close = bars.close[first:].astype(np.float64)
        wanted, mean = follow(close, 2 / (self.length + 1), state[0] or float(close[0]))
        return wanted, (mean,)
'''

LOOPS = '''"""The loop over bars of {name}: plain Python as it is, machine code once it is compiled (see README.md)."""

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64, u8
from numpy.typing import NDArray


def follow(closes: NDArray[np.float64], gain: float, mean: float) -> tuple[NDArray[np.uint8], float]:
    """1 where a close is above the mean before it; and the mean after the last close.

    Arrays come in and go out; native vecs stay inside, where the loop reads them at full speed.
    """
    close = vec[float](closes)
    wanted = vec[u8](np.zeros(len(closes), dtype=np.uint8))
    n: i64 = len(close)
    i: i64 = 0
    while i < n:
        x = close[i]
        if x > mean:
            wanted[i] = 1
        mean += gain * (x - mean)
        i += 1
    return np.frombuffer(memoryview(wanted), dtype=np.uint8), mean
'''

TEST = '''"""{kind} decides what was worked out by hand, and the same however a job is cut."""

from candlemill.testing import bars_of, decisions
from hypothesis import given
from hypothesis import strategies as st

from {name} import {kind}


def test_golden() -> None:
    assert decisions({kind}(length=2), bars_of([1, 2, 3, 2, 1, 4])) == [0, {second}, 1, 0, 0, 1]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=60),
    st.integers(1, 9),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_no_cut_shows(closes: list[float], length: int, cuts: list[int]) -> None:
    strategy, bars = {kind}(length=length), bars_of(closes)
    assert decisions(strategy, bars, [min(cut, bars.n) for cut in cuts]) == decisions(strategy, bars)
'''

README = """# {name}

```
candlemill backtest --symbol BTCUSDT --strategy {name}.py --param length=100     # run it
candlemill check {name}.py                                                       # look for mistakes on data
python -m pytest                                                                 # test it
{compile}
```

`CANDLEMILL_STRATEGIES=<this folder>` makes it known by its name, `{name}`, to every command and to the functions.
"""
COMPILE = {
    "windowed": "# NumPy is fast enough here; a loop over bars goes into a module beside it, which mypyc compiles",
    "stateful": "CFLAGS=-ffp-contract=off mypyc {name}_loops.py  # compile it (pip install 'mypy[mypyc]')",
}
SECOND_POSITION = {"windowed": 0, "stateful": 1}  # 0: the windowed one has too few bars


def write_strategy(name: str, kind: str, where: Path) -> Path:
    """Write the folder `where/name` and return its path. Raises BadInput for an invalid or existing name."""
    title = "".join(part.capitalize() for part in name.split("_"))
    if not NAME.fullmatch(name) or name_of(title) != name:
        raise BadInput(f"name {name!r} is not words of two or more letters a-z and digits, joined by _, as in my_fade")
    if name in BUILT_IN:
        raise BadInput(f"name {name!r} is a built-in strategy's: choose another")
    if importlib.util.find_spec(name) is not None:
        raise BadInput(f"name {name!r} is an installed Python module's: choose another")
    folder = where / name
    if folder.exists():
        raise BadInput(f"{folder} is there already: choose another name or --folder")
    words = {
        "name": name,
        "kind": title,
        "title": name.replace("_", " ").capitalize(),
        "second": str(SECOND_POSITION[kind]),
        "compile": COMPILE[kind].format(name=name),
    }
    files = {
        f"{name}.py": WINDOWED if kind == "windowed" else STATEFUL,
        f"test_{name}.py": TEST,
        "README.md": README,
    }
    if kind == "stateful":
        files[f"{name}_loops.py"] = LOOPS
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text.format(**words))
    return folder
