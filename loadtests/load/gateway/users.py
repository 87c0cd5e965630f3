"""Who uses the gateway, and how. A locustfile: `locust -f loadtests/gateway/users.py --host URL` runs it alone.

CANDLEMILL_LOAD_THINK is the mean time in seconds before each request (1), CANDLEMILL_LOAD_KEY an API key.
"""

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3])]

# ruff: noqa: E402 -- locust loads this file by its path
from locust import constant, task

from loadtests.load.gateway.asking import STRATEGIES, Answer, Asker, chance

FAVOURITE_FEES = (1000, 750, 400)  # what many people ask for: all of it is computed once
UNKNOWN_ID = "0" * 32
BODY_LIMIT = 256 * 1024


class Researcher(Asker):
    """Asks for a backtest that nobody has requested, watches it, reads what came out, and asks once more."""

    weight = 3
    wait_time = constant(0)

    @task
    def study(self) -> None:
        self.think()
        request, began = self.new_request(), time.perf_counter()
        job = self.submitted("backtest, new", request)
        if not job:
            return
        state = self.follow(job) if chance.random() < 0.5 else self.poll(job)
        self.journey(
            "a new backtest, requested to done", began, "" if state == "done" else f"it is {state or 'unknown'}"
        )
        if state != "done":
            return
        for path, kind in (("", "result"), ("/equity?points=500", "equity"), ("/trades?limit=50", "trades")):
            self.think()
            self.ask("GET", f"/api/v1/backtest/{job}{path}", kind)
        self.think()
        again = self.ask("POST", "/api/v1/backtest", "backtest, the same again", request, 202)
        if again and (again["job_id"], again["state"]) != (job, "done"):
            self.journey("the same again is the same job", began, f"{again['state']} as {again['job_id']}")


class Returner(Asker):
    """Asks for what many others ask for, and reads it."""

    weight = 5
    wait_time = constant(0)

    @task
    def look_up(self) -> None:
        self.think()
        symbol = chance.choice(Asker.market)["symbol"]
        request = {"symbol": symbol, "strategy": chance.choice(STRATEGIES), "fee": chance.choice(FAVOURITE_FEES)}
        job = self.submitted("backtest, a favourite", request)
        if not job:
            return
        self.think()
        self.ask("GET", f"/api/v1/backtest/{job}", "result, a favourite")
        self.think()
        self.ask("POST", "/api/v1/plan", "plan", self.new_request())


class Looker(Asker):
    """Has the dashboard open: lists of jobs, what is stored, candles to draw."""

    weight = 5
    wait_time = constant(0)

    @task(4)
    def list_jobs(self) -> None:
        self.think()
        page = self.ask("GET", f"/api/v1/backtests?limit=50{chance.choice(('', '&state=done', '&kind=sweep'))}", "jobs")
        if page.get("next"):
            self.think()
            self.ask("GET", f"/api/v1/backtests?limit=50&cursor={page['next']}", "jobs, next page")
        if page.get("items"):
            self.think()
            self.ask("GET", f"/api/v1/backtest/{chance.choice(page['items'])['job_id']}", "job from the list")

    @task(2)
    def look_at_candles(self) -> None:
        self.think()
        symbol = chance.choice(Asker.market)
        self.ask("GET", f"/api/v1/symbols/{symbol['symbol']}", "symbol")
        self.think()
        first = chance.randint(symbol["first_ms"], symbol["last_ms"])
        query = f"from={first}&to={min(first + 7 * 86_400_000, symbol['last_ms'])}&points=500"
        self.ask("GET", f"/api/v1/symbols/{symbol['symbol']}/candles?{query}", "candles")

    @task(2)
    def open_the_page(self) -> None:
        self.think()
        self.ask("GET", "/", "dashboard page")
        self.ask("GET", "/api/v1/symbols", "symbols")
        self.ask("GET", "/api/v1/strategies", "strategies")

    @task(1)
    def be_probed(self) -> None:
        self.think()
        self.ask("GET", "/healthz", "healthz")
        self.ask("GET", "/readyz", "readyz")


class Sweeper(Asker):
    """Asks for small sweeps, and looks at their sets and maps."""

    weight = 1
    wait_time = constant(0)

    @task
    def sweep(self) -> None:
        self.think()
        symbol, month = self.somewhere()
        grid = {"fast": "5:20:5", "slow": "50:150:50"}
        request: Answer = {
            "symbol": symbol, "strategy": "sma_cross", "range": month, "grid": grid, "fee": chance.randint(1, 99_999)
        }  # fmt: skip
        began = time.perf_counter()
        job = self.submitted("sweep, new", request)
        if not job:
            return
        state = self.poll(job)
        self.journey("a sweep of 12 sets, requested to done", began, "" if state == "done" else f"it is {state}")
        if state != "done":
            return
        for path, kind in (("", "sweep"), ("/results?limit=12", "sweep's sets"), ("/heatmap", "heat map")):
            self.think()
            self.ask("GET", f"/api/v1/backtest/{job}{path}", kind)


class Careless(Asker):
    """Asks for what there is not. Each answer is the status that the interface promises, or it is an error."""

    weight = 1
    wait_time = constant(0)

    @task
    def be_wrong(self) -> None:
        self.think()
        good = self.new_request()
        path = "/api/v1/backtest"
        for kind, status, body in (
            ("no such symbol", 404, good | {"symbol": "NOSUCHUSDT"}),
            ("no such strategy", 422, good | {"strategy": "no_such"}),
            ("a parameter that is none", 422, good | {"params": {"no_such": 1}}),
            ("a fee beyond all bounds", 400, good | {"fee": 10**9}),
            ("a range without candles", 409, good | {"range": "2010"}),
            ("a field that is none", 400, good | {"no_such": 1}),
        ):
            self.think()
            self.ask("POST", path, f"{status}: {kind}", body, status)
        self.think()
        self.ask("POST", path, "400: no JSON", expect=400, raw=b'{"symbol": ')
        self.think()
        self.ask("POST", path, "413: too large", expect=413, raw=b'"' + b"x" * BODY_LIMIT + b'"')
        self.think()
        self.ask("GET", f"{path}/{UNKNOWN_ID}", "404: no such job", expect=404)
        self.think()
        self.ask("GET", "/api/v1/backtests?limit=0", "400: a page of nothing", expect=400)
        self.think()
        self.ask("DELETE", "/api/v1/symbols", "405: not to be deleted", expect=405)


class Backtester(Asker):
    """Nothing but new backtests, each watched to its end: what a backtest costs. Only where it is requested by name."""

    weight = 0
    wait_time = constant(0)

    @task
    def backtest(self) -> None:
        began = time.perf_counter()
        job = self.submitted("backtest, new", self.new_request())
        state = self.follow(job) if job else "not taken"
        self.journey(
            "a new backtest, requested to done", began, "" if state == "done" else f"it is {state or 'unknown'}"
        )
