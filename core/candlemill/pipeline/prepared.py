"""A job that can run, and its data."""

import msgspec

from candlemill.backtests.plan import Plan
from candlemill.backtests.spec import Spec
from candlemill.pipeline.cache_keys import JobData


class Prepared(msgspec.Struct, frozen=True):
    """A job that can run: its identity, its data and its plan."""

    job_id: str
    spec: Spec
    data_digest: str
    plan: Plan


class PreparedJob(msgspec.Struct, frozen=True):
    """A prepared job, the number of slices that it was prepared for (None: as many as fit), and its data."""

    job: Prepared
    slices: int | None
    data: JobData
