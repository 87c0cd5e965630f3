"""Settings from the environment, and folders of this machine. Only this module reads the environment."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

DSN_VARIABLE = "CANDLEMILL_CLICKHOUSE_DSN"
STRATEGIES_VARIABLE = "CANDLEMILL_STRATEGIES"
KEYS_VARIABLE = "CANDLEMILL_API_KEYS"
ORIGINS_VARIABLE = "CANDLEMILL_CORS_ORIGINS"
LIMIT_VARIABLE = "CANDLEMILL_REQUESTS_PER_MINUTE"
KEY_VARIABLE = "CANDLEMILL_API_KEY"
PASSWORD_VARIABLE = "CANDLEMILL_DB_PASSWORD"
DEAD_LETTERS_VARIABLE = "CANDLEMILL_DEAD_LETTERS"
AUDIENCE_VARIABLE = "CANDLEMILL_OIDC_AUDIENCE"
ISSUER_VARIABLE = "CANDLEMILL_OIDC_ISSUER"
JWKS_VARIABLE = "CANDLEMILL_OIDC_JWKS"
SUBJECT_VARIABLE = "CANDLEMILL_OIDC_SUBJECT"
TASKS_VARIABLE = "CANDLEMILL_TASKS_UNDER_WAY"
TASK_SECONDS_VARIABLE = "CANDLEMILL_TASK_SECONDS"
TASKS_UNDER_WAY = 16  # twice 8 executors of one task each, as knative/base has them
TASK_SECONDS = 1.0

VARIABLES = {
    DSN_VARIABLE: "the database: chdb:///FOLDER, or clickhouse:// or http(s):// of a server (default: chDB in the "
    "user's data folder)",
    STRATEGIES_VARIABLE: "a folder of strategy files that every process loads",
    KEYS_VARIABLE: "the file of API keys of the gateway; `off` lets anyone in",
    ORIGINS_VARIABLE: "origins of other sites that may call the gateway, separated by commas",
    LIMIT_VARIABLE: "requests a minute for each client of the gateway (default 6000)",
    KEY_VARIABLE: "the API key that `candlemill cluster` sends to the gateway",
    PASSWORD_VARIABLE: "the password of `candlemill db`; needed to listen beyond this machine",
    DEAD_LETTERS_VARIABLE: "address that receives the dead letters of long tasks (JobSink)",
    AUDIENCE_VARIABLE: "the audience of tokens that callers of a function must bring (default: none are needed)",
    ISSUER_VARIABLE: "who issues them: `iss` of the cluster's tokens",
    JWKS_VARIABLE: "address of the issuer's keys (JWKS)",
    SUBJECT_VARIABLE: "how the names of accounts begin that may call, such as system:serviceaccount:candlemill:",
    TASKS_VARIABLE: "tasks of a job that split requests before others are done (default 16: two for each executor that "
    "knative/base allows, so that none waits for its next one)",
    TASK_SECONDS_VARIABLE: "how long a task may take by estimate; as many slices as fit go into one (default 1)",
    "CANDLEMILL_FEED_SYMBOLS": "symbols of the feed function, separated by commas",
    "CANDLEMILL_FEED_EXCHANGE": "its exchange (default binance), as in `candlemill feed --exchange`",
    "CANDLEMILL_FEED_REST": "another address for the exchange's REST interface",
    "CANDLEMILL_FEED_STREAM": "another address for its streams",
    "CANDLEMILL_FEED_ARCHIVE": "another address for its archive of files; empty: none",
    "CANDLEMILL_PAPER_REQUEST": "what the paper function runs: a request as of POST /api/v1/backtest, without a range",
    "CANDLEMILL_PAPER_FROM": "when its runs begin, like 2024-02-01 (default: now, or as before)",
    "HOST": "the address that the gateway function listens on (default 0.0.0.0)",
    "PORT": "the port that a function listens on (default 8080)",
    "K_SINK": "where events go; set by Knative",
    "K_SERVICE": "this service's name in traces; set by Knative",
    "K_EVENT_PATH": "the folder of a long task's event; set by Knative (default /etc/jobsink-event)",
    "OTEL_SDK_DISABLED": "`true` switches traces off",
    "OTEL_TRACES_EXPORTER": "`none` switches traces off",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "where traces go; without it and the next there are none",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "where traces go, instead of the one before",
    "OTEL_SERVICE_NAME": "this service's name in traces",
    "OTEL_RESOURCE_ATTRIBUTES": "more attributes of this service in traces",
}


def setting(name: str, default: str = "") -> str:
    """Value of one of VARIABLES, stripped; `default` if it is not set. Raises KeyError for other names."""
    if name not in VARIABLES:
        raise KeyError(f"{name} is not declared in config.VARIABLES")
    return os.environ.get(name, default).strip()


def is_set(name: str) -> bool:
    """Whether one of VARIABLES is set, even if empty."""
    return name in VARIABLES and name in os.environ


def dsn(given: str | os.PathLike[str] | None = None) -> str:
    """DSN of the database: the given one, or of the folder that is given; else the one of the environment (an empty one
    is an error of the store), or chDB in a folder."""
    if given is not None:
        text = os.fspath(given)
        return f"chdb://{Path(text).absolute()}" if text.strip() and "://" not in text else text
    return setting(DSN_VARIABLE) if is_set(DSN_VARIABLE) else f"chdb://{data_folder() / 'db'}"


def strategies_folder() -> Path | None:
    """The operator's folder of strategy files, or None."""
    given = setting(STRATEGIES_VARIABLE)
    return Path(given).resolve() if given else None


CGROUPS = Path("/sys/fs/cgroup")  # version 2: the container's own, or the root with that of /proc/self/cgroup below
CGROUP_OF_PROCESS = Path("/proc/self/cgroup")


def memory_bytes() -> int:
    """The memory that this process may use: the machine's, or less where a control group limits it."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _memory_files():
        with contextlib.suppress(OSError, ValueError):  # `max`: no limit
            limits.append(int(file.read_text()))
    return min(limits)


def cache_bytes(most: int, share: int) -> int:
    """How large a cache may be: `most`, or less where the `share`-th part of the memory is less."""
    return min(most, memory_bytes() // share)


def _memory_files() -> Iterator[Path]:
    """Where control groups' limits stand: this process's group and those around it, of version 2 and 1."""
    groups = [CGROUPS]
    with contextlib.suppress(OSError):
        for line in CGROUP_OF_PROCESS.read_text().splitlines():
            below = PurePosixPath(line.rpartition(":")[2]).relative_to("/")
            groups += [CGROUPS / one for one in (below, *below.parents)]
    yield from (group / "memory.max" for group in groups)
    yield CGROUPS / "memory" / "memory.limit_in_bytes"


def data_folder() -> Path:
    """The user's data folder, by the conventions of the operating system."""
    import platformdirs  # imported late: servers do not need it

    return Path(platformdirs.user_data_dir("candlemill", appauthor=False))


def cooldown_folder() -> Path:
    """Folder with the cooldowns of exchanges, shared by the user's processes."""
    return data_folder() / "cooldown"


def bundled(name: str) -> Path:
    """Path of `functions`, `schema` or `knative`, in the installed package or in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_share" / name
    return inside if inside.is_dir() else package.parent.parent / name
