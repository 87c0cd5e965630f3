"""One tree of errors. Each knows its code, its exit status and whether the same call can succeed later."""

from difflib import get_close_matches


def one_line(text: str) -> str:
    """Return the text with everything unprintable escaped, so that a message stays on its line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class CandlemillError(Exception):
    """A failure in one line: the value, the limit and the way out."""

    code = "failed"
    exit_status = 1
    retryable = False


class BadInput(CandlemillError):
    """What was asked for cannot be done as it stands."""

    code = "bad_input"
    exit_status = 2


class UnknownName(BadInput):
    """A symbol, strategy, parameter or job that does not exist; suggests the nearest one that does."""

    code = "unknown_name"

    def __init__(self, kind: str, name: str, known: list[str], advice: str) -> None:
        super().__init__(kind, name, known, advice)

    def near(self) -> list[str]:
        """Names that exist and look like it, the nearest first."""
        _, name, known, _ = self.args
        return get_close_matches(name, known, cutoff=0.5) or get_close_matches(name.upper(), known, cutoff=0.5)

    def __str__(self) -> str:
        kind, name, _, advice = self.args
        near = self.near()
        guess = f"did you mean {near[0]!r}? " if near else ""
        return one_line(f"unknown {kind} {name!r}: {guess}{advice}")


class NoData(BadInput):
    """The range holds no candle, or misses more minutes than the job allows."""

    code = "no_data"


class TooLarge(BadInput):
    """A number does not fit where it must be kept exactly."""

    code = "too_large"


class BadFile(BadInput):
    """A file that cannot be used: `file`, `line` (from 1) or None, and `reason`; its text is `FILE:LINE: reason`."""

    code = "bad_file"

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        super().__init__(file, line, reason)
        self.file = file
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return one_line(f"{place}: {self.reason}")


class Cancelled(CandlemillError):
    """The job was cancelled while it was waited for."""

    code = "cancelled"


class Stopped(CandlemillError):
    """The process that runs the job is about to end."""

    code = "stopped"
    retryable = True


class StoreError(CandlemillError):
    """The database refused or failed."""

    code = "store_failed"


class StoreDown(StoreError):
    """The database cannot be reached now."""

    code = "store_down"
    retryable = True


class BeingWritten(StoreError):
    """Candles that are asked for are being written now, or their last write did not end."""

    code = "being_written"
    retryable = True


class SinkDown(CandlemillError):
    """Events cannot be sent now."""

    code = "sink_down"
    retryable = True


class DatabaseLocked(StoreError):
    """Another process has the embedded database's folder open."""

    code = "database_locked"


class UnsafeHost(BadInput):
    """Refused to listen beyond this machine without a password."""

    code = "unsafe_host"


class ClusterError(CandlemillError):
    """A Kubernetes cluster refused, or lacks what is needed."""

    code = "cluster_failed"


class ClusterForbidden(ClusterError):
    """Whoever asks lacks the right."""

    code = "cluster_forbidden"


class ClusterDown(ClusterError):
    """A Kubernetes cluster cannot be reached now."""

    code = "cluster_down"
    retryable = True


class BadMessage(CandlemillError):
    """What an exchange sent is not what it documents."""

    code = "bad_message"


class ExchangeDown(CandlemillError):
    """An exchange or its archive does not answer, or asks to wait. `wait` is how long, in seconds, where it says so."""

    code = "exchange_down"
    retryable = True

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class NotThere(CandlemillError):
    """The exchange or its archive does not have what was asked for."""

    code = "not_there"


class BadPlugin(BadInput):
    """A strategy from outside cannot be loaded."""

    code = "bad_plugin"


class BadStrategy(BadInput):
    """A strategy from outside failed, or answered what no strategy may."""

    code = "bad_strategy"
