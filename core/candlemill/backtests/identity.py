"""Content addresses of jobs, and digests of the code that determines a result."""

import hashlib
from functools import cache
from pathlib import Path

from candlemill.backtests.spec import Spec
from candlemill.strategies import source_digest

# All sources that determine a result, as patterns from the package's root; a test compares them with the imports.
DECIDING = (
    "engine/*.py", "units.py", "strategies/builtin/*.py",
    *(f"strategies/{name}.py" for name in ("base", "schedule", "orders", "array_orders", "panels")),
    *(f"backtests/{name}.py" for name in ("slice", "spec_rules", "states", "gaps", "merge", "result", "metrics")),
    *(f"backtests/{name}.py" for name in ("account", "margin", "marks", "single", "single_orders", "unit_orders")),
    *(f"backtests/{name}.py" for name in ("tapes", "settlement", "panel", "panel_bars", "universe", "daily", "tiers")),
)  # fmt: skip


@cache
def code_digest() -> str:
    """Return the SHA-256 of the sources that determine a result: engine, strategies, accounts, figures made of a
    summary.
    """
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for pattern in DECIDING for path in root.glob(pattern)):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def job_id(spec: Spec, data_digest: str) -> str:
    """Return the content address of a job's result: a hash of the spec, the candles and the code."""
    parts = [spec.to_json(), data_digest.encode(), *_sources(spec.strategy)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def code_key(strategy: str) -> str:
    """Return the identity of the code that runs a strategy."""
    return hashlib.sha256(b"\0".join(_sources(strategy))).hexdigest()[:16]


def _sources(strategy: str) -> list[bytes]:
    """Return digests of the sources that determine a strategy's results.

    The source of a plugin changes the identity of the plugin's own jobs only.
    """
    own = source_digest(strategy)
    return [code_digest().encode(), *([own.encode()] if own else [])]
