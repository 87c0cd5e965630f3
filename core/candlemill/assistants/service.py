"""`candlemill mcp`: the tools of `tools.py` on stdin and stdout, over the store of this machine or over a gateway."""

from collections.abc import Iterator
from contextlib import contextmanager

from candlemill.assistants.caller import Caller, InProcess, OverHttp
from candlemill.config import KEY_VARIABLE, setting
from candlemill.gateway.access import LOOPBACK_NAMES, AccessPolicy
from candlemill.gateway.app import create_app
from candlemill.gateway.job_service import CachedIndex, JobService
from candlemill.gateway.standalone import Driver, loaded_strategies
from candlemill.gateway.study_runs import StudyRuns
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.column_cache import ColumnCache


def run(dsn: str, url: str | None, allow_jobs: bool) -> None:
    """Serve an assistant until it closes stdin. Raises DatabaseLocked, BadInput."""
    from candlemill.assistants.tools import server

    if url is not None:
        server(OverHttp(url, setting(KEY_VARIABLE)), allow_jobs).run("stdio")
        return
    with local_gateway(dsn, allow_jobs) as caller:
        server(caller, allow_jobs).run("stdio")


@contextmanager
def local_gateway(dsn: str, allow_jobs: bool) -> Iterator[Caller]:
    """Open the store and the gateway's app in this process; jobs run only with `allow_jobs`."""
    access = AccessPolicy(LOOPBACK_NAMES, per_minute=None)
    with loaded_strategies(), ClickHouseStore(dsn) as store:
        store.columns = ColumnCache()
        index = CachedIndex(store)
        if not allow_jobs:
            yield InProcess(create_app(JobService(store, lambda _: None, index=index), access))
            return
        with ClickHouseStore(dsn) as of_jobs:
            of_jobs.columns = store.columns
            driver = Driver(of_jobs, index.days)
            world = JobService(store, driver.publish, driver, index)
            runs = StudyRuns(world)
            try:
                yield InProcess(create_app(world, access, runs))
            finally:
                runs.close()
                driver.close()
