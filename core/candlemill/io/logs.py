"""Log lines: for people on a terminal, one JSON object per line for whatever collects them.

    log = logging.getLogger("candlemill.feed")
    log.warning("%d minutes are not in the store", n, extra={"symbol": "BTCUSDT"})

Fields: `time` (UTC, ms), `level`, `logger`, `message`, what was given as `extra` under its own names (job, slice,
event, trace, symbol, …), and `error`, the traceback, where there is one. Lines go to stderr: stdout is for results.
"""

import json as encoder
import logging
import sys
import time
from typing import Any, Final

from candlemill.errors import one_line

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def setup(json: bool | None = None, level: int = logging.INFO) -> None:
    """Send the log of the whole process to stderr; as JSON if told so, and by default where that is no terminal."""
    handler = _Stderr()
    handler.setFormatter(JsonLines() if json or (json is None and not sys.stderr.isatty()) else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


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
            **extras(record),
        }
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        return encoder.dumps(found, default=str, ensure_ascii=False)


class TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        more = "".join(f" {name}={value}" for name, value in extras(record).items())
        line = f"{_moment(record)[11:19]} {level}{one_line(record.getMessage())}{more}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _moment(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z"
