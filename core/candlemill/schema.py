"""The schema's statements, and what they are on a ClickHouse cluster: replicated tables, created on every node.

`schema/*.sql` is the only source; nothing about a table is said twice.
"""

import re
from collections.abc import Iterable

from candlemill.errors import BadInput

CLUSTER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}|\{cluster\}")

# Where a table's replicas meet in the keeper: macros that every server of a cluster has, but for {table}.
KEEPER_PATH = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"

# What names the object comes right before ON CLUSTER; a GRANT has it first.
_NAMED = re.compile(r"\A((?:CREATE (?:TABLE|ROLE) IF NOT EXISTS|ALTER TABLE) \w+)")
_GRANT = re.compile(r"\AGRANT\b")
_ENGINE = re.compile(r"ENGINE = (\w*MergeTree)(?:\(([^()]*)\))?")


def statements(sources: Iterable[str]) -> list[str]:
    """The statements of SQL files, in order, without comments."""
    return [part.strip() for source in sources for part in re.sub(r"--.*", "", source).split(";") if part.strip()]


def on_cluster(statement: str, cluster: str) -> str:
    """The statement for all nodes of a cluster. What only moves rows stays as it is: they are replicated.

    Raises BadInput for a name that is none.
    """
    if not CLUSTER_NAME.fullmatch(cluster):
        raise BadInput(f"cluster {cluster!r} is no name: 1 to 64 letters, digits and any of _ . - or {{cluster}}")
    where = f"ON CLUSTER '{cluster}'"
    text = _NAMED.sub(rf"\1 {where}", statement)
    text = _GRANT.sub(f"GRANT {where}", text)
    return _ENGINE.sub(_replicated, text)


def _replicated(engine: re.Match[str]) -> str:
    arguments = ", ".join(filter(None, (KEEPER_PATH, (engine[2] or "").strip())))
    return f"ENGINE = Replicated{engine[1]}({arguments})"
