"""Log lines: for people on a terminal, one JSON object per line for whatever collects them.

    log = logging.getLogger("candlemill.feed")
    log.warning("%d minutes are not in the store", n, extra={"symbol": "BTCUSDT"})

Fields: `time` (UTC, ms), `level`, `logger`, `message`, what the line is `about` (job, slice, batch, event, attempt,
trace), what was given as `extra` under its own names (symbol, seconds, …), and `error`, the traceback, where there is
one. Lines go to stderr: stdout is for results.
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

TALKATIVE: Final = ("urllib3.connectionpool", "clickhouse_connect")  # each attempt, at length; our lines say it once

_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


def setup(json: bool | None = None, level: int = logging.INFO) -> None:
    """Send the log of the whole process to stderr; as JSON if told so, and by default where that is no terminal."""
    handler = _Stderr()
    handler.setFormatter(JsonLines() if json or (json is None and not sys.stderr.isatty()) else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)


def setup_service(verbose: bool) -> None:
    """As `setup`; on a terminal nothing but warnings, or every request would write over what somebody reads."""
    setup(level=logging.INFO if verbose or not sys.stderr.isatty() else logging.WARNING)


def setup_once() -> None:
    """As `setup`, unless somebody has said already where lines go."""
    if logging.getLogger().handlers:
        return
    setup()
    server = logging.getLogger("gunicorn.error")  # it brings a handler of its own
    server.handlers.clear()
    server.propagate = True


@contextmanager
def about(**fields: Any) -> Iterator[dict[str, Any]]:
    """What all lines in the block are about, whoever writes them; empty values are left out. More may be put into the
    dictionary that it gives."""
    known = {**(_about.get() or {}), **{name: value for name, value in fields.items() if value not in ("", None)}}
    token = _about.set(known)
    try:
        yield known
    finally:
        _about.reset(token)


def tell(**fields: Any) -> None:
    """What the lines in the innermost `about` are about, now that it is known."""
    known = _about.get()
    if known is not None:
        known.update(fields)


class _Stderr(logging.Handler):
    """Writes to what stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # a progress bar may stand there
            print(f"{clear}{self.format(record)}", file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`."""
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
