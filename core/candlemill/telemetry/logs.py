"""Log lines: text on a terminal, else one JSON object per line.

    log = logging.getLogger("candlemill.feed")
    log.warning("%d minutes are not in the store", n, extra={"symbol": "BTCUSDT"})

Fields: `time` (UTC, ms), `level`, `logger`, `message`, the fields of `about` (job, slice, batch, event, attempt,
trace), those of `extra` (symbol, seconds, …), and `error`, the traceback, if there is one. Lines go to stderr: stdout
is for results.
"""

import json as encoder
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from candlemill.errors import one_line

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

QUIET: Final = ("urllib3", "clickhouse_connect")  # they log each attempt; candlemill logs a failure once

_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


def setup(json: bool | None = None, level: int = logging.INFO) -> None:
    """Send the log of the process to stderr, as JSON or text; None: as JSON unless stderr is a terminal."""
    handler = _Stderr()
    handler.setFormatter(JsonLines() if json or (json is None and not sys.stderr.isatty()) else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def setup_service(verbose: bool) -> None:
    """As `setup`; on a terminal only warnings, unless `verbose`, so that requests do not flood it."""
    setup(level=logging.INFO if verbose or not sys.stderr.isatty() else logging.WARNING)


def setup_once() -> None:
    """As `setup`, unless logging is already configured."""
    if logging.getLogger().handlers:
        return
    setup()
    server = logging.getLogger("gunicorn.error")  # it has its own handler
    server.handlers.clear()
    server.propagate = True


@contextmanager
def about(**fields: Any) -> Iterator[dict[str, Any]]:
    """Add fields to all log lines of the block, except empty values. Yields the dictionary, to be extended."""
    current = {**(_about.get() or {}), **{name: value for name, value in fields.items() if value not in ("", None)}}
    token = _about.set(current)
    try:
        yield current
    finally:
        _about.reset(token)


def add_fields(**fields: Any) -> None:
    """Add fields to the log lines of the innermost `about` block."""
    current = _about.get()
    if current is not None:
        current.update(fields)


class _Stderr(logging.Handler):
    """Handler that writes to the current `sys.stderr`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # clears a progress bar
            print(f"{clear}{self.format(record)}", file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Fields of `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _OWN}


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_about.get() or {}),
            **extras(record),
        }
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        line = encoder.dumps(found, default=str, ensure_ascii=False)
        return line if line.isprintable() else "".join(c if c.isprintable() else encoder.dumps(c)[1:-1] for c in line)


class TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        more = "".join(f" {name}={value}" for name, value in extras(record).items())
        line = f"{_moment(record)[11:19]} {level}{one_line(record.getMessage() + more)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _moment(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z"
