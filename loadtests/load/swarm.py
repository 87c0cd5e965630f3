"""One stage of a load test: users of some kinds for some seconds, each request written down. A process of its own,
because locust has gevent take the place of what the standard library waits with.

    python -m … '{"source": "loadtests/load/gateway/users.py", "host": "http://…", "users": 200, …}' OUT.json
"""

from locust import User  # before all else: it patches what the others import

# isort: split
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import msgspec
from locust.env import Environment

from loadtests.common.lab import Busy, Line
from loadtests.load.orders import Heard, Orders, Sample

ERRORS_KEPT = 100
ARRIVALS_PER_SECOND = 100
STOP_SECONDS = 30  # for what is under way at the end; what takes longer is cut off and not counted
JOURNEY = "journey"


class Ear:
    """Hears of every request."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.errors: list[str] = []
        self.began = float("inf")

    def hear(
        self, request_type: str, name: str, response_time: float, exception: BaseException | None, **_: Any
    ) -> None:
        if exception is not None and len(self.errors) < ERRORS_KEPT:
            self.errors.append(f"{name}: {exception}")
        at = time.monotonic() - self.began
        if at >= 0 or exception is not None:  # an error counts whenever it comes
            is_journey = request_type == JOURNEY
            self.samples.append(
                Sample(round(max(at, 0.0), 3), name, round(response_time, 3), exception is None, is_journey)
            )

    def stumble(self, exception: BaseException) -> None:
        """A user itself has failed: its answer was not what it can go on with."""
        self.hear("", "a user failed", 0.0, exception)


def run(orders: Orders) -> Heard:
    os.environ["CANDLEMILL_LOAD_THINK"] = str(orders.think)
    os.environ["CANDLEMILL_LOAD_SEED"] = str(orders.seed)
    found = runpy.run_path(orders.source)
    users = [one for one in found.values() if isinstance(one, type) and issubclass(one, User) and not one.abstract]
    users = [one for one in users if (one.__name__ in orders.kinds if orders.kinds else one.weight)]
    for one in users if orders.kinds else ():
        one.weight = 1  # those that are named are as many of each
    environment = Environment(user_classes=users, host=orders.host.rstrip("/"))
    ear = Ear()
    environment.events.request.add_listener(ear.hear)
    environment.events.user_error.add_listener(lambda exception, **_: ear.stumble(exception))
    runner = environment.create_local_runner()
    runner.stop_timeout = STOP_SECONDS
    runner.start(orders.users, spawn_rate=ARRIVALS_PER_SECOND)
    gevent.sleep(orders.settle)
    ear.began = time.monotonic()
    busy = Busy(swarm=os.getpid(), **orders.pids)
    line = Line()
    while (passed := time.monotonic() - ear.began) < orders.seconds:
        gevent.sleep(min(1.0, orders.seconds - passed))
        line.say(_reported(orders, ear))
    seconds, cores = time.monotonic() - ear.began, busy.cores()
    samples = list(ear.samples)
    line.end(_reported(orders, ear))
    runner.quit()
    return Heard(seconds, samples, ear.errors, cores)


def _reported(orders: Orders, ear: Ear) -> str:
    passed = time.monotonic() - ear.began
    requests = sum(not one.is_journey for one in ear.samples)
    wrong = sum(not one.good for one in ear.samples)
    rate = requests / max(passed, 1e-9)
    return (
        f"{orders.label}: {passed:3.0f} of {orders.seconds:.0f} s, {orders.users} users, "
        f"{requests:,} requests ({rate:.0f}/s), {wrong} unexpected errors"
    )


def main() -> int:
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(run(orders)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
