"""One tree of errors. Each knows its code, its exit status and whether the same call can succeed later."""

from difflib import get_close_matches


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
        near = get_close_matches(name, known, n=1, cutoff=0.5) or get_close_matches(
            name.upper(), known, n=1, cutoff=0.5
        )
        guess = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}: {guess}{advice}")


class NoData(BadInput):
    """The range holds no candle, or misses more minutes than the job allows."""

    code = "no_data"


class TooLarge(BadInput):
    """A number does not fit where it must be kept exactly."""

    code = "too_large"


class BadFile(BadInput):
    """A file of candles that is refused as a whole. `line` is 1-based, None where the file itself is at fault."""

    code = "bad_file"

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        self.file = file
        self.line = line
        self.reason = reason
        super().__init__(f"{file}:{line}: {reason}" if line is not None else f"{file}: {reason}")


class StoreError(CandlemillError):
    """The database refused or failed."""

    code = "store_failed"


class StoreDown(StoreError):
    """The database cannot be reached now."""

    code = "store_down"
    retryable = True


class DatabaseLocked(StoreError):
    """Another process has the embedded database's folder open."""

    code = "database_locked"


class JobFailed(CandlemillError):
    """A job ended as failed; the message is its reason."""

    code = "job_failed"
