"""What befalls a request before it is answered: the exchange's limits, in the words of each dialect, and faults."""

from collections import Counter, deque

import msgspec
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from loadtests.exchange_simulator.faults import Dice
from loadtests.exchange_simulator.market import RunningTime, VirtualClock

IN_FLIGHT_SECONDS = 0.5  # of running: what was sent before the refusal was read is no offence. So offences show at low
# speeds only; at thousands of times the clock's speed every ban is over within this time.
LIMITS = {"binance": (6000, 60), "bybit": (600, 5)}  # weight within seconds


class Guard:
    """One address's standing with the exchange. `weight` is another limit than the exchange's own."""

    def __init__(self, clock: VirtualClock, dice: Dice, counts: Counter[str], weight: int = 0) -> None:
        self._clock, self._dice, self._counts, self._weight = clock, dice, counts, weight
        self._spent: deque[tuple[int, int]] = deque()
        self._forbidden_until = 0
        self._forbade_at = 0.0
        self.running = RunningTime()
        self.headers: dict[str, str] = {}

    async def check(self, weight: int, dialect: str = "binance") -> Response | None:
        """None where the request is to be answered."""
        now, dice, counts = self._clock.now_ms(), self._dice, self._counts
        limit, seconds = LIMITS[dialect]
        counts["requests"] += 1
        while self._spent and self._spent[0][0] <= now - 1000 * seconds:
            self._spent.popleft()
        self._spent.append((now, weight))
        used = sum(each for _, each in self._spent)
        self.headers = {"X-MBX-USED-WEIGHT-1M": str(used)} if dialect == "binance" else {}
        if now < self._forbidden_until:
            if self.running.read() - self._forbade_at > IN_FLIGHT_SECONDS:
                counts["requested_while_forbidden"] += 1
            return self._forbid(dialect, "ban", 120)
        if used > (self._weight or limit):
            counts["over_the_limit"] += 1
            return self._forbid(dialect, "limit", 60)
        if dice.hits("too_many"):
            counts["too_many"] += 1
            return self._forbid(dialect, "limit", dice.rng.randint(1, 90))
        if dice.hits("ban"):
            counts["ban"] += 1
            return self._forbid(dialect, "ban", dice.rng.randint(60, 600))
        if dice.hits("server_error"):
            counts["server_error"] += 1
            return HTMLResponse("<html>bad gateway</html>", dice.rng.choice([500, 502, 503, 504]))
        if dice.hits("slow"):
            counts["slow"] += 1
            await self._clock.sleep(dice.rng.uniform(1, 40))
        return None

    def _forbid(self, dialect: str, kind: str, seconds: int) -> Response:
        """Binance says for how long; Bybit's documentation does: 10 minutes, or the window of its limit."""
        if dialect == "bybit":
            seconds = 600 if kind == "ban" else 5
        self._forbade_at = self.running.read()
        self._forbidden_until = max(self._forbidden_until, self._clock.now_ms() + 900 * seconds)
        if dialect == "bybit" and kind == "ban":
            return PlainTextResponse("access too frequent", 403)
        if dialect == "bybit":
            return json_response({"retCode": 10006, "retMsg": "Too many visits!", "result": {}, "time": 0})
        body = {"code": -1003, "msg": "Way too much request weight used; IP banned"}
        headers = {"Retry-After": str(seconds), **self.headers}
        return json_response(body, 418 if kind == "ban" else 429, headers)


def json_response(found: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(found), status, headers, "application/json")
