"""The fresh process of `candlemill check`: every look at the clock is found, and no library is in its way."""

import datetime
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from candlemill.checks import fresh_process
from candlemill.checks.moved_clock import moments
from candlemill.checks.report import Finding
from candlemill.checks.runner import check
from candlemill.strategies import REGISTERED, loader

STRATEGY = """
import time, os, tempfile
import numpy as np
from candlemill.strategies import Windowed
{top}

class {name}(Windowed, frozen=True):
    def lookback(self):
        return 2

    def positions(self, bars):
        {body}
"""
_numbers = count()
Process = Callable[[str, str], Finding]


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """What the test `process` says of a strategy with these lines at the top of its file and in `positions`."""

    def found(top: str, body: str) -> Finding:
        path = tmp_path / "strategy.py"
        indented = body.strip().replace("\n", "\n        ")
        path.write_text(STRATEGY.format(top=top, name=f"Try{next(_numbers)}", body=indented))
        kind = REGISTERED[loader.load(str(path))]
        return check(kind, only=["process"], elsewhere=fresh_process.decide)["process"]

    return found


# -- clocks --------------------------------------------------------------------------------------------------------

BY_THE_CLOCK = "its decisions depend on the time at which they are computed"
DAY = 86_400
READERS = {  # whole days, or something else that is even on some days and odd on others
    "time.time": ("", f"int(time.time()) // {DAY}"),
    "from time import time": ("from time import time as seconds", f"int(seconds()) // {DAY}"),
    "time.time_ns": ("", f"time.time_ns() // {DAY * 10**9}"),
    "time.localtime": ("", "time.localtime().tm_yday"),
    "time.gmtime": ("", "time.gmtime().tm_yday"),
    "time.strftime": ("", "int(time.strftime('%j'))"),
    "time.ctime": ("", "int(time.ctime().split()[2])"),
    "time.asctime": ("", "int(time.asctime().split()[2])"),
    "time.clock_gettime": ("", f"int(time.clock_gettime(time.CLOCK_REALTIME)) // {DAY}"),
    "time.monotonic": ("", f"int(time.monotonic()) // {DAY}"),
    "time.perf_counter_ns": ("", f"time.perf_counter_ns() // {DAY * 10**9}"),
    "time.process_time": ("", f"int(time.process_time()) // {DAY}"),
    "datetime.now": ("import datetime", "datetime.datetime.now().toordinal()"),
    "datetime.now(tz)": ("import datetime", "datetime.datetime.now(datetime.UTC).toordinal()"),
    "datetime.utcnow": ("from datetime import datetime", "datetime.utcnow().toordinal()"),
    "datetime.today": ("from datetime import datetime", "datetime.today().toordinal()"),
    "date.today": ("from datetime import date", "date.today().toordinal()"),
    "a bound now": ("from datetime import datetime\nnow = datetime.now", "now().toordinal()"),
    "a class of its own": ("import datetime\nclass Day(datetime.datetime): pass", "Day.now().toordinal()"),
    "datetime64 now": ("", "int(np.datetime64('now', 'D').astype(int))"),
    "datetime64 today": ("", "int(np.array(['today'], dtype='M8[D]').astype(int)[0])"),
    "email.utils": ("import email.utils", "int(email.utils.formatdate().split()[1])"),
    "os.stat": ("", f"int(os.stat(tempfile.mkdtemp()).st_mtime) // {DAY}"),
    "os.scandir": ("", f"(tempfile.mkdtemp(dir='.'), int(next(os.scandir('.')).stat().st_ctime) // {DAY})[1]"),
    "Path.stat": ("import pathlib", f"pathlib.Path(tempfile.mkdtemp()).stat().st_mtime_ns // {DAY * 10**9}"),
    "when it is loaded": ("import datetime\nDAY = datetime.date.today().toordinal()", "DAY"),
    "when it is first called": (
        "import datetime, functools\n@functools.cache\ndef day(): return datetime.date.today().toordinal()", "day()",
    ),
    "pandas.Timestamp.now": ("import pandas as pd", "pd.Timestamp.now().toordinal()"),
    "pandas.Timestamp('today')": ("import pandas as pd", "pd.Timestamp('today').toordinal()"),
    "pandas.Timestamp.now(tz)": ("import pandas as pd", "pd.Timestamp.now('Asia/Tokyo').toordinal()"),
    "pandas.to_datetime": ("import pandas as pd", "pd.to_datetime(['now'])[0].toordinal()"),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_any_way_to_the_clock_is_found(reader: str, process: Process) -> None:
    if "pandas" in reader:
        pytest.importorskip("pandas", reason="pandas is not installed: pip install '.[test]'")
    if reader.startswith("datetime64") and not sys.platform.startswith("linux"):
        pytest.skip("NumPy's own clock is moved on Linux only")
    top, days = READERS[reader]
    found = process(top, f"return (bars.close > bars.open) ^ (({days}) % 2 == 0)")
    assert (found.verdict, found.text) == ("fault", BY_THE_CLOCK)
    assert found.counterexample is not None
    (here, now), (there, then) = found.counterexample.said
    assert here == "now"
    assert there.startswith("at 20")
    assert now != then


PARTS = {
    "an odd year": "now.year % 2",
    "one year": "now.year == 2033",
    "one month": "now.month == 8",
    "one day": "now.day == 17",
    "a month's end": "(now + timedelta(days=1)).day == 1",
    "29 February": "(now.month, now.day) == (2, 29)",
    "New Year's Eve": "(now.month, now.day) == (12, 31)",
    "one weekday": "now.weekday() == 3",
    "weekends": "now.weekday() >= 5",
    "one hour": "now.hour == 5",
    "one minute": "now.minute == 41",
    "one second": "now.second == 13",
    "a day that is far": "now.year > 2030",
    "a day that is past": "now.year > 2020",
}


@pytest.mark.clock
@pytest.mark.parametrize("part", PARTS)
def test_any_part_of_the_time_is_found(part: str, process: Process) -> None:
    top = "from datetime import UTC, datetime, timedelta"
    found = process(top, f"now = datetime.now(UTC)\nreturn (bars.close > bars.open) ^ bool({PARTS[part]})")
    assert (found.verdict, found.text) == ("fault", BY_THE_CLOCK)


def test_a_second_that_ends_between_the_processes_is_found(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh process begins later than this one has decided: what differs then is the clock, not the environment."""
    at = datetime.datetime(2026, 5, 4, 3, 2, 13, tzinfo=datetime.UTC)
    monkeypatch.setattr(fresh_process.time, "time_ns", lambda: int(at.timestamp()) * 10**9)
    found = process(
        "from datetime import UTC, datetime", "return (bars.close > bars.open) ^ (datetime.now(UTC).second == 13)"
    )
    assert (found.verdict, found.text) == ("fault", BY_THE_CLOCK)


@pytest.mark.parametrize("hours", [0, 14])  # the fresh process lives in the time zone that is ahead of all others
def test_the_moments_have_every_part_of_a_time(hours: int) -> None:
    tried = [datetime.datetime.fromtimestamp(at / 1000, datetime.UTC) for at in moments()]
    local = [moment + datetime.timedelta(hours=hours) for moment in tried]
    first = local[:70]
    assert {moment.year for moment in first} >= set(range(2001, 2037))
    assert {moment.month for moment in first} == set(range(1, 13))
    assert {moment.day for moment in first} == set(range(1, 32))
    assert {moment.weekday() for moment in first} == set(range(7))
    assert {moment.hour for moment in first} == set(range(24))
    assert {moment.minute for moment in first} == {moment.second for moment in first} == set(range(60))
    assert len({(moment.month, moment.day) for moment in tried}) == 366
    one, two = tried[:2]  # the slowest strategies are tried at these
    for part in ("year", "hour", "minute", "second"):
        assert getattr(one, part) % 2 != getattr(two, part) % 2, part
    assert one.month % 2 != two.month % 2
    assert one.weekday() % 2 != two.weekday() % 2


def test_what_an_error_depends_on_is_named(process: Process) -> None:
    """One year after 29 February there is no such day."""
    found = process(
        "from datetime import UTC, datetime",
        "datetime.now(UTC).replace(year=2027)\nreturn bars.close > bars.open",
    )
    assert found.verdict == "fault"
    assert found.text.startswith("in a fresh process: at 2028-02-29T12:34Z: decide() fails: ")
    assert "ValueError: day is out of range for month" in found.text


# -- what is no fault ----------------------------------------------------------------------------------------------


def test_reading_the_clock_is_allowed(process: Process) -> None:
    """Only decisions count: a strategy may log, measure and keep files as it likes."""
    found = process(
        "import logging, threading",
        """
began = time.perf_counter()
logging.warning("at %s", time.strftime("%c"))
waited = threading.Event().wait(0.001)
path = tempfile.mkstemp()[1]
os.utime(path, (1_000_000_000, 1_000_000_000))
old = os.stat(path).st_mtime == 1_000_000_000
return (bars.close > bars.open) & (time.perf_counter() >= began) & old & (not waited)
""",
    )
    assert found.verdict == "ok"
    assert found.text.startswith("the same with another environment, time zone, hash seed and folder, and at ")


LIBRARIES = {
    "pandas": (
        "import pandas as pd",
        "close = pd.Series(bars.close, index=pd.to_datetime(bars.t, unit='ms', utc=True))\n"
        "return (close > close.shift(1).fillna(0)).to_numpy() & (close.index.hour < 12)",
    ),
    "polars": (
        "import polars as pl",
        "frame = pl.DataFrame({'t': bars.t, 'close': bars.close}).with_columns(pl.from_epoch('t', time_unit='ms'))\n"
        "return frame.select((pl.col('close') > pl.col('close').shift(1).fill_null(0))\n"
        "                    & (pl.col('t').dt.hour() < 12)).to_series().to_numpy()",
    ),
    "pyarrow": (
        "import pyarrow as pa, pyarrow.compute as pc",
        "at = pa.array(bars.t).cast(pa.timestamp('ms'))\n"
        "return pc.less(pc.hour(at), 12).to_numpy(zero_copy_only=False) & (bars.close > bars.open)",
    ),
    "plotly": (
        "import plotly.graph_objects as go",
        "figure = go.Figure(go.Scatter(y=bars.close[:5]))\n"
        "return (bars.close > bars.open) & (len(figure.to_json()) > 0)",
    ),
    "sklearn": (
        "from sklearn.linear_model import LinearRegression\n"
        "MODEL = LinearRegression().fit(np.arange(8.0).reshape(-1, 1), np.arange(8.0))",
        "change = (bars.close - bars.open).astype(np.float64)\n"
        "return MODEL.predict(change.reshape(-1, 1)) > 0.5 if bars.n else bars.close > 0",
    ),
    "talib": (
        "import talib",
        "return np.nan_to_num(talib.MOM(bars.close.astype(np.float64), 2)) > 0 if bars.n else bars.close > 0",
    ),
    "numba": (
        "import numba\n@numba.njit\ndef rising(close):\n    out = np.zeros(len(close), np.bool_)\n"
        "    for j in range(1, len(close)):\n        out[j] = close[j] > close[j - 1]\n    return out",
        "return rising(bars.close)",
    ),
    "scipy": (
        "from scipy.ndimage import maximum_filter1d",
        "return bars.close >= maximum_filter1d(bars.close, 2, origin=0) if bars.n else bars.close > 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_library_is_in_the_way(library: str, process: Process) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install '.[test,bench]'")
    found = process(*LIBRARIES[library])
    assert found.verdict == "ok", found
    assert "other times" in found.text


def test_a_process_that_takes_too_long_is_no_fault(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_process, "TIMEOUT_SECONDS", 0.001)
    found = process("", "return bars.close > bars.open")
    assert (found.verdict, found.text) == ("skipped", "a fresh process has not decided after 0.001 s")


MOVED = """
import datetime, pickle, sys, time
import numpy as np
early = (time.time, datetime.datetime, datetime.date.today)
from candlemill.checks.moved_clock import MovedClock
clock = MovedClock()
clock.install()
clock.move_to(1_835_440_496_000, 1)
assert datetime.datetime is early[1] and type(datetime.datetime.now()) is datetime.datetime
assert early[2]() == datetime.date(2028, 2, 29), "a method that was taken before"
assert str(np.datetime64("now"))[:10] == "2028-02-29" or sys.platform != "linux"
assert pickle.loads(pickle.dumps(time.time)) is time.time
assert time.time.__name__ == "time" and time.gmtime(0).tm_year == 1970
for wrong in (lambda: datetime.datetime.now("UTC"), lambda: time.strftime(3), lambda: time.localtime("x")):
    try:
        wrong()
    except TypeError:
        continue
    raise AssertionError(wrong)
"""


def test_no_class_is_replaced() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MOVED], env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_this_process_keeps_its_clock() -> None:
    """Nothing above has moved it."""
    assert abs(int(np.datetime64("now", "s").astype(int)) - datetime.datetime.now(datetime.UTC).timestamp()) < 60
