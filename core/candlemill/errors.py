"""Exceptions, with their code, exit status, and whether a retry can succeed."""

from difflib import get_close_matches


def one_line(text: str) -> str:
    """Escape unprintable characters, so that a message stays on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class CandlemillError(Exception):
    """Base class. The text is one line with the value, the limit and the way out."""

    code = "failed"
    exit_status = 1
    retryable = False

    @property
    def public(self) -> str:
        """The text for people who may see a job, but not the strategies that the operator has loaded."""
        return str(self)


class BadInput(CandlemillError):
    """A request that cannot be fulfilled as it is."""

    code = "bad_input"
    exit_status = 2


class UnknownName(BadInput):
    """An unknown symbol, strategy, parameter or job; suggests the most similar known one."""

    code = "unknown_name"

    def __init__(self, kind: str, name: str, known: list[str], advice: str) -> None:
        super().__init__(kind, name, known, advice)

    def near(self) -> list[str]:
        """Similar known names, the most similar first."""
        _, name, known, _ = self.args
        longer = [one for one in known if len(name) > 1 and one.startswith(name)]
        close = get_close_matches(name, known, cutoff=0.5) or get_close_matches(name.upper(), known, cutoff=0.5)
        return list(dict.fromkeys([*longer, *close]))

    def __str__(self) -> str:
        kind, name, _, advice = self.args
        near = self.near()
        guess = f"did you mean {near[0]!r}? " if near else ""
        return one_line(f"unknown {kind} {name!r}: {guess}{advice}")


class NoData(BadInput):
    """The range has no candles, or lacks more minutes than the job allows."""

    code = "no_data"


class TooLarge(BadInput):
    """A number that is too large to be stored exactly."""

    code = "too_large"


class BadFile(BadInput):
    """An invalid file: `file`, `line` (from 1) or None, and `reason`; the text is `FILE:LINE: reason`."""

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
    """The job was cancelled while a caller waited for it."""

    code = "cancelled"


class Stopped(CandlemillError):
    """The process that runs the job is stopping."""

    code = "stopped"
    retryable = True


class StoreError(CandlemillError):
    """The database reported an error."""

    code = "store_failed"


class StoreDown(StoreError):
    """The database is not reachable."""

    code = "store_down"
    retryable = True


class BeingWritten(StoreError):
    """The requested candles are being written, or their last write did not finish."""

    code = "being_written"
    retryable = True


class CandlesMissing(StoreError):
    """Stored candles differ from the digest of the metadata index: a part was lost or damaged."""

    code = "candles_missing"


class SinkDown(CandlemillError):
    """Events cannot be sent."""

    code = "sink_down"
    retryable = True


class CallerRefused(CandlemillError):
    """A caller of a function that brings no token, or one that is not accepted."""

    code = "caller_refused"


class KeysDown(CandlemillError):
    """The keys by which tokens are checked cannot be read."""

    code = "keys_down"
    retryable = True


class DatabaseLocked(StoreError):
    """Another process has the embedded database's folder open."""

    code = "database_locked"


class UnsafeHost(BadInput):
    """A server that would accept connections of other machines without a password."""

    code = "unsafe_host"


class ClusterError(CandlemillError):
    """A Kubernetes cluster reported an error, or lacks a component."""

    code = "cluster_failed"


class ClusterForbidden(ClusterError):
    """The client lacks a right of the Kubernetes API."""

    code = "cluster_forbidden"


class ClusterDown(ClusterError):
    """A Kubernetes cluster is not reachable."""

    code = "cluster_down"
    retryable = True


class BadMessage(CandlemillError):
    """A message of an exchange that does not match its documentation."""

    code = "bad_message"


class ExchangeDown(CandlemillError):
    """An exchange or its archive does not respond, or requires a pause. `wait`: its seconds, 0 if unknown."""

    code = "exchange_down"
    retryable = True

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class NotThere(CandlemillError):
    """The exchange or its archive does not have the requested data."""

    code = "not_there"


class BadPlugin(BadInput):
    """A user's strategy that cannot be loaded."""

    code = "bad_plugin"

    @property
    def public(self) -> str:
        return "the strategy cannot be loaded; the log says why"


class BadStrategy(BadInput):
    """A strategy from outside failed, or answered what no strategy may; `public` leaves out what its code says."""

    code = "bad_strategy"

    def __init__(self, text: str, public: str = "") -> None:
        super().__init__(text, public)

    @property
    def public(self) -> str:
        return str(self.args[1] or self.args[0])

    def __str__(self) -> str:
        return str(self.args[0])
