"""What all users of the gateway can do: ask, think, and know which answers were to be expected."""

import json
import os
import random
import time
from typing import Any, ClassVar

import gevent
from locust import FastHttpUser
from locust.exception import StopUser

JOURNEY = "journey"  # several requests and the waits between them: timed, but not counted as a request
POLL_SECONDS = 0.25
JOB_SECONDS = 60.0
ENDS = ("done", "failed", "cancelled")
STRATEGIES = ("sma_cross", "momentum_v1", "donchian", "macd")

Answer = dict[str, Any]

chance = random.Random(int(os.environ.get("CANDLEMILL_LOAD_SEED", "0")) or None)


class Asker(FastHttpUser):
    """One person. `think_seconds` is the mean time before a request."""

    abstract = True
    think_seconds: ClassVar[float] = float(os.environ.get("CANDLEMILL_LOAD_THINK", "1.0"))
    market: ClassVar[list[Answer]] = []
    connection_timeout = 30.0
    network_timeout = 60.0

    def on_start(self) -> None:
        self.think()  # not all at once
        if not Asker.market:
            Asker.market = self.ask("GET", "/api/v1/symbols", "symbols").get("symbols", [])
        if not Asker.market:
            raise StopUser("no candles are stored: nothing can be requested")

    def think(self) -> None:
        """An exponential time, so that users do not fall into step."""
        if self.think_seconds:
            gevent.sleep(min(chance.expovariate(1 / self.think_seconds), 5 * self.think_seconds))

    def ask(
        self,
        method: str,
        path: str,
        kind: str,
        body: object = None,
        expect: int | tuple[int, ...] = 200,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """The answer's JSON; {} where it is none. Any status but the expected ones is an error of this kind."""
        expected = expect if isinstance(expect, tuple) else (expect,)
        data = json.dumps(body).encode() if raw is None and body is not None else raw
        more: dict[str, Any] = {"data": data, "headers": headers or _headers()}
        with self.client.request(method, path, name=kind, catch_response=True, **more) as found:
            if found.status_code not in expected:
                said = (found.content or b"")[:200] if found.status_code else found.error
                found.failure(f"{found.status_code} instead of {expected[0]}: {said!r}")
                return {}
            found.success()
            is_json = "json" in found.headers.get("content-type", "")
            return json.loads(found.content) if is_json and found.content else {}  # type: ignore[no-any-return]

    def journey(self, kind: str, began: float, wrong: str = "") -> None:
        """The end of a journey that began then, by `perf_counter`."""
        taken = 1e3 * (time.perf_counter() - began)
        error = RuntimeError(wrong) if wrong else None
        self.environment.events.request.fire(
            request_type=JOURNEY, name=kind, response_time=taken, response_length=0, exception=error, context={}
        )

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def somewhere(self) -> tuple[str, str]:
        """A symbol and one of its months, as the interface takes them."""
        symbol = chance.choice(Asker.market)
        at = time.gmtime(chance.randint(symbol["first_ms"], symbol["last_ms"]) / 1000)
        return symbol["symbol"], f"{at.tm_year}-{at.tm_mon:02d}"

    def new_request(self) -> Answer:
        """What nobody has requested yet: its fee is one of many."""
        symbol, month = self.somewhere()
        return {
            "symbol": symbol,
            "strategy": chance.choice(STRATEGIES),
            "range": month,
            "fee": chance.randint(1, 99_999),
        }

    def submitted(self, kind: str, request: Answer) -> str:
        """The job's id; empty where it was not taken."""
        return str(self.ask("POST", "/api/v1/backtest", kind, request, 202).get("job_id", ""))

    def follow(self, job_id: str) -> str:
        """Watch a job to its end by server-sent events; its last state. A stream counts as one request, which is timed
        until its head is there."""
        path = f"/api/v1/backtest/{job_id}/events"
        with self.client.get(
            path, name="progress (SSE)", catch_response=True, stream=True, headers=_headers()
        ) as found:
            if found.status_code != 200:
                found.failure(f"{found.status_code} instead of 200")
                return ""
            text = "".join(found.iter_content())
            said = [line[6:].strip() for line in text.splitlines() if line.startswith("event:")]
            state = said[-1] if said else ""
            if state in ENDS:
                found.success()
            else:
                found.failure(f"the stream ended with {state or 'nothing'}")
        return state

    def poll(self, job_id: str) -> str:
        """Watch a job to its end by asking; its last state."""
        deadline = time.monotonic() + JOB_SECONDS
        state = ""
        while state not in ENDS and time.monotonic() < deadline:
            gevent.sleep(POLL_SECONDS)
            answer = self.ask("GET", f"/api/v1/backtest/{job_id}", "job (polled)")
            if not answer:
                return ""
            state = answer["state"]
        return state


def _headers() -> dict[str, str]:
    key = os.environ.get("CANDLEMILL_LOAD_KEY")
    return {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
