"""Statements of the schema, and their form for a ClickHouse cluster: replicated tables, created on every node.

`schema/*.sql` is the only definition of the tables.
"""

import re
from collections.abc import Iterable

from candlemill.errors import BadInput

CLUSTER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}|\{cluster\}")

# Path of a table's replicas in the keeper. ClickHouse replaces the macros; every server of a cluster defines them.
KEEPER_PATH = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"

# ON CLUSTER follows the object's name, but in a GRANT the first word.
_NAMED = re.compile(r"\A((?:CREATE (?:TABLE|ROLE) IF NOT EXISTS|ALTER TABLE) \w+)")
_GRANT = re.compile(r"\AGRANT\b")
_TABLE = re.compile(r"\A(?:CREATE TABLE IF NOT EXISTS|ALTER TABLE) (\w+)")
_ADDED = re.compile(r"ADD COLUMN IF NOT EXISTS (\w+)")
_PACKED = re.compile(r"MODIFY COLUMN (\w+) \S+ CODEC")
_ENGINE = re.compile(r"ENGINE = (\w*MergeTree)(?:\(([^()]*)\))?")


def statements(sources: Iterable[str]) -> list[str]:
    """Statements of SQL files, in order, without comments."""
    return [part.strip() for source in sources for part in re.sub(r"--.*", "", source).split(";") if part.strip()]


def missing_in(sources: Iterable[str], present: Iterable[tuple[str, str, str]]) -> bool:
    """Return whether a database lacks a table, a column or a codec of SQL files; `present` has the table, name and
    codec of each of its columns."""
    columns = list(present)
    found = {(table, name) for table, name, _ in columns} | {(table, "") for table, _, _ in columns}
    packed = {(table, name) for table, name, codec in columns if codec}
    for statement in statements(sources):
        if not (named := _TABLE.match(statement)):
            continue
        table, added, codecs = named[1], _ADDED.findall(statement), _PACKED.findall(statement)
        if not found.issuperset((table, name) for name in ("", *added)):
            return True
        if not packed.issuperset((table, name) for name in codecs):
            return True
    return False


def on_cluster(statement: str, cluster: str) -> str:
    """Change a statement to run on all nodes of a cluster. INSERT stays unchanged, since rows are replicated.

    Raises BadInput for an invalid name.
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
