"""A broker on this machine: takes events, delivers each once to the function that its type goes to, by the rules of a
Knative Broker (again after 5xx, 404, 408, 409, 429 and silence; else a dead letter), and tells how long that took.

    python -m loadtests.load.functions.broker '{"split": ["http://…"], "execute": ["http://…", …], "aggregate": [...]}'

A function's instances take one event each at a time, as `containerConcurrency: 1` has it; `+N` behind an address lets
it take N. `GET /ended/TRACE` answers when the job that was requested with that trace has ended.
"""

import asyncio
import base64
import json
import sys
import time
from collections import defaultdict
from typing import Any

from candlemill.feed.web_client import RequestFailed, WebClient
from candlemill.pipeline import events
from candlemill.transport.asgi import serving
from candlemill.transport.functions import DEAD_LETTERS, ROUTES
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

AGAIN = (0, 404, 408, 409, 429)
RETRIES = 5
BACKOFF_SECONDS = 0.2
ENDED_SECONDS = 60.0
DELIVERY_SECONDS = 600.0
ANSWER_BYTES_MAX = 2**20
CONNECTIONS = 256  # to each instance, kept open

Headers = dict[str, str]


class Broker:
    """What waits, who is free, and what has been heard."""

    def __init__(self, instances: dict[str, list[str]]) -> None:
        self._free: dict[str, asyncio.Queue[str]] = {}
        for name, addresses in instances.items():
            self._free[name] = asyncio.Queue()
            for address in addresses:
                url, _, slots = address.partition("+")
                for _ in range(int(slots or 1)):
                    self._free[name].put_nowait(url)
        self.waited: dict[str, list[float]] = defaultdict(list)  # ms from its coming to a free instance
        self.took: dict[str, list[float]] = defaultdict(list)  # ms of deliveries, by function and status
        self.dead = 0
        self.again = 0
        self._ends: dict[str, asyncio.Future[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = WebClient(CONNECTIONS)

    # -- taking --------------------------------------------------------------------------------------------------------

    async def take(self, request: Request) -> Response:
        body = await request.body()
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers = {n: v for n, v in headers.items() if n.startswith("ce-") or n in ("content-type", "traceparent")}
        is_structured = headers.get("content-type", "").startswith("application/cloudevents+json")
        inside = json.loads(body) if is_structured else {}
        kind = inside.get("type") or headers.get("ce-type", "")
        trace = (inside.get("traceparent") or headers.get("ce-traceparent", ""))[3:35]
        if kind in (events.COMPLETED, events.FAILED):
            end = self._end(trace)
            if not end.done():
                end.set_result(kind)
        if name := ROUTES.get(kind):
            self._begin(self._deliver(name, headers, body, time.perf_counter()))
        return Response(status_code=202)

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, trace: str) -> "asyncio.Future[str]":
        if trace not in self._ends:
            self._ends[trace] = asyncio.get_running_loop().create_future()
        return self._ends[trace]

    # -- delivering ----------------------------------------------------------------------------------------------------

    async def _deliver(self, name: str, headers: Headers, body: bytes, came: float, attempt: int = 0) -> None:
        url = await self._free[name].get()
        began = time.perf_counter()
        self.waited[name].append(1e3 * (began - came))
        try:
            status, _, said = await self._client.request(
                "POST", url, body=body, headers=headers, seconds=DELIVERY_SECONDS, max_bytes=ANSWER_BYTES_MAX
            )
        except RequestFailed:
            status, said = 0, b""
        finally:
            self._free[name].put_nowait(url)
        self.took[f"{name} {status}"].append(1e3 * (time.perf_counter() - began))
        if 200 <= status < 300:
            return
        if (status in AGAIN or status >= 500) and attempt < RETRIES:
            self.again += 1
            await asyncio.sleep(BACKOFF_SECONDS * 2**attempt)
            await self._deliver(name, headers, body, time.perf_counter(), attempt + 1)
        elif "ce-knativeerrorcode" not in headers and b'"knativeerrorcode"' not in body:
            await self._bury(name, headers, body, status, said)

    async def _bury(self, name: str, headers: Headers, body: bytes, status: int, said: bytes) -> None:
        self.dead += 1
        more = {
            "knativeerrordest": f"http://{name}",
            "knativeerrorcode": str(status or 500),
            "knativeerrordata": base64.b64encode(said[:768]).decode(),
        }
        if "ce-id" in headers:
            headers = headers | {f"ce-{key}": value for key, value in more.items()}
        else:
            body = json.dumps({**json.loads(body), **more}).encode()
        await self._deliver(DEAD_LETTERS, headers, body, time.perf_counter())

    # -- telling -------------------------------------------------------------------------------------------------------

    async def ended(self, request: Request) -> Response:
        trace = request.path_params["trace"]
        try:
            kind = await asyncio.wait_for(asyncio.shield(self._end(trace)), ENDED_SECONDS)
        except TimeoutError:
            return Response(status_code=504)
        self._ends.pop(trace, None)
        return JSONResponse({"type": kind})

    async def figures(self, _: Request) -> Response:
        """All that was measured since it was requested last."""
        said = {"waited": dict(self.waited), "took": dict(self.took), "dead": self.dead, "again": self.again}
        self.waited, self.took = defaultdict(list), defaultdict(list)
        self.dead = self.again = 0
        return JSONResponse(said)


async def serve(instances: dict[str, list[str]]) -> None:
    broker = Broker(instances)
    routes = [
        Route("/", broker.take, methods=["POST"]),
        Route("/ended/{trace}", broker.ended),
        Route("/figures", broker.figures),
    ]
    async with serving(Starlette(routes=routes), "127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0) as port:
        print(f"a broker on http://127.0.0.1:{port}/", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
