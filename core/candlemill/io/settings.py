"""Where things are: the database, the bundled files, the limits an operator may set."""

import os
from pathlib import Path

DSN_VARIABLE = "CANDLEMILL_CLICKHOUSE_DSN"
STRATEGIES_VARIABLE = "CANDLEMILL_STRATEGIES"
SILENCE = "silence"  # the folder, in the data folder, of what exchanges have forbidden for a while


def dsn() -> str:
    """The database to use: the environment's, or an embedded one in the user's data directory."""
    given = os.environ.get(DSN_VARIABLE, "").strip()
    return given or f"chdb://{data_folder() / 'db'}"


def strategies_folder() -> Path | None:
    """The operator's folder of strategy files; None where there is none."""
    given = os.environ.get(STRATEGIES_VARIABLE, "").strip()
    return Path(given).resolve() if given else None


def data_folder() -> Path:
    import platformdirs  # imported late: servers are told where things are

    return Path(platformdirs.user_data_dir("candlemill", appauthor=False))


def bundled(name: str) -> Path:
    """`functions` or `schema`: inside the installed package, or beside `core/` in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_share" / name
    return inside if inside.is_dir() else package.parent.parent / name
