"""Changes the clock of this process, for the fresh process of `candlemill check`.

NumPy, datetime and C extensions keep references to the `datetime` class, so no class is replaced. Instead, functions of
`time` and `os` are wrapped, the four methods of `date` and `datetime` that read the clock are replaced inside their
classes, and NumPy's import of the C function `time` is redirected. Libraries that read the clock in their own C code,
other processes and servers still get the real time (docs/check.md).
"""

import ctypes
import datetime
import functools
import gc
import os
import time
from collections.abc import Callable
from typing import Any, Final

from candlemill.checks import numpy_clock

SECOND_NS: Final = 1_000_000_000
STEADY_STEP_NS: Final = 100_003 * SECOND_NS + 700_000_000  # more than a day, and not a whole number of any unit
STALE_NS: Final = SECOND_NS // 10  # file times come from a coarser clock, some milliseconds late
STEADY: Final = ("monotonic", "perf_counter", "process_time", "thread_time")
UTC: Final = datetime.UTC

# Two whose parts (year, month, day …) all differ in parity, then changes of the year and of its leading digits.
FIRST_MOMENTS: Final = (
    datetime.datetime(2028, 2, 29, 12, 34, 56, tzinfo=UTC),
    datetime.datetime(2031, 11, 30, 23, 59, 57, tzinfo=UTC),
    datetime.datetime(2026, 12, 31, 23, 59, 3, tzinfo=UTC),
    datetime.datetime(2029, 1, 1, 0, 0, 0, tzinfo=UTC),
    datetime.datetime(2025, 6, 14, 7, 15, 30, tzinfo=UTC),
    datetime.datetime(2032, 9, 10, 18, 1, 10, tzinfo=UTC),
)
DAYS: Final = 366
DAY_STRIDE: Final = 161  # days between moments; coprime to 366, so each day of a leap year occurs once
FIRST_YEAR, YEARS = 2001, 36


def moments() -> list[int]:
    """Return the times to test, UTC ms, most useful first: `FIRST_MOMENTS`, then one on each day of a leap year.

    Every year from 2001 to 2036, month, day, weekday, hour, minute and second is among the first seventy.
    """
    found = [*FIRST_MOMENTS, *(_moment(k) for k in range(DAYS))]
    return [int(moment.timestamp()) * 1000 for moment in found]


def _moment(k: int) -> datetime.datetime:
    day = datetime.date(2028, 1, 1) + datetime.timedelta(days=k * DAY_STRIDE % DAYS)
    year = 2028 if (day.month, day.day) == (2, 29) else FIRST_YEAR + k * 5 % YEARS
    return datetime.datetime(year, day.month, day.day, k % 24, k * 7 % 60, (k * 11 + 1) % 60, tzinfo=UTC)


class MovedClock:
    """The clock of this process after `install`. It continues to run from the time that is set."""

    def __init__(self) -> None:
        self._real_ns = time.time_ns
        self._began_ns = time.time_ns() - STALE_NS
        self._offset_ns = self._steady_ns = 0

    def move_to(self, moment_ms: int, steps: int) -> None:
        """Set the time. Monotonic clocks advance by `steps`, which must increase with each call: they never go back."""
        self._offset_ns = moment_ms * 1_000_000 - self._real_ns()
        self._steady_ns = steps * STEADY_STEP_NS

    def install(self) -> None:
        """Install the clock. It cannot be removed: use it only in a process that ends after its reply."""
        self._move_time()
        self._move_datetime()
        self._move_file_times()
        numpy_clock.redirect(lambda: self.now_ns() // SECOND_NS)

    def now_ns(self) -> int:
        return self._real_ns() + self._offset_ns

    def _seconds(self) -> float:
        return self.now_ns() / SECOND_NS

    def _move_time(self) -> None:
        _wrap(time, "time", lambda real: self._seconds)
        _wrap(time, "time_ns", lambda real: self.now_ns)
        for name in STEADY:
            _wrap(time, name, lambda real: lambda: real() + self._steady_ns / SECOND_NS)
            _wrap(time, f"{name}_ns", lambda real: lambda: real() + self._steady_ns)
        real_time = {getattr(time, name, None) for name in ("CLOCK_REALTIME", "CLOCK_TAI")}
        _wrap(time, "clock_gettime_ns", lambda real: lambda clock: real(clock) + self._shift_of(clock in real_time))
        _wrap(time, "clock_gettime", lambda real: lambda clock: time.clock_gettime_ns(clock) / SECOND_NS)
        for name in ("localtime", "gmtime", "ctime"):
            _wrap(time, name, lambda real: lambda t=None: real(self._seconds() if t is None else t))
        local = time.localtime
        _wrap(time, "asctime", lambda real: lambda t=None: real(local() if t is None else t))
        _wrap(time, "strftime", lambda real: lambda text, t=None: real(text, local() if t is None else t))

    def _shift_of(self, wall: bool) -> int:
        return self._offset_ns if wall else self._steady_ns

    def _move_datetime(self) -> None:
        def today(kind: type[datetime.date]) -> datetime.date:
            return kind.fromtimestamp(self._seconds())

        def now(kind: type[datetime.datetime], tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return kind.fromtimestamp(self._seconds(), tz)

        def utcnow(kind: type[datetime.datetime]) -> datetime.datetime:
            return kind.fromtimestamp(self._seconds(), UTC).replace(tzinfo=None)

        _set_in_class(datetime.date, "today", classmethod(today))
        _set_in_class(datetime.datetime, "now", classmethod(now))
        _set_in_class(datetime.datetime, "utcnow", classmethod(utcnow))

    def _move_file_times(self) -> None:
        """Move the times of files written since this process began; older files are data and keep their times."""
        for name in ("stat", "lstat", "fstat"):
            real = getattr(os, name)
            moved = _wrap(os, name, self._with_moved_times)
            for kinds in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
                if real in kinds:
                    kinds.add(moved)
        _set_in_class(os.DirEntry, "stat", self._with_moved_times(os.DirEntry.stat))

    def _with_moved_times(self, real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def stat(*args: Any, **kwargs: Any) -> os.stat_result:
            found = real(*args, **kwargs)
            if max(found.st_mtime_ns, found.st_ctime_ns, found.st_atime_ns) < self._began_ns:
                return found
            parts: Any = found.__reduce__()[1]
            fields, named = list(parts[0]), dict(parts[1])
            for place, name in enumerate(("st_atime", "st_mtime", "st_ctime"), 7):
                at = getattr(found, f"{name}_ns")
                at += self._offset_ns if at >= self._began_ns else 0
                fields[place] = at // SECOND_NS
                named |= {name: at / SECOND_NS, f"{name}_ns": at}
            return os.stat_result(fields, named)

        return stat


def _wrap(module: Any, name: str, make: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """Replace a function of the module; do nothing if the system does not have it."""
    real: Any = getattr(module, name, None)
    made = make(real)

    @functools.wraps(real)
    def moved(*args: Any, **kwargs: Any) -> Any:
        return made(*args, **kwargs)

    if real is not None:
        setattr(module, name, moved)
    return moved


def _set_in_class(kind: type, name: str, value: object) -> None:
    """Set an attribute of a class written in C through the dict behind `__dict__`, and clear the attribute cache."""
    (members,) = gc.get_referents(kind.__dict__)
    members[name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))
