"""The Broker and the functions' processes: at-least-once delivery, retries with back-off, dead letters.

A process does with an event what `transport.http.respond` does with a request.
"""

from collections import Counter
from functools import partial as bound

import msgspec
from candlemill.errors import CandlemillError
from candlemill.pipeline.context import HandlerContext, Unchanged
from candlemill.pipeline.events import Event
from candlemill.store import day_index
from candlemill.store.candle_reader import CandleReader
from candlemill.transport import cloudevents, dedup, http
from candlemill.transport.functions import DEAD_LETTERS, ROUTES, handler
from greenlet import GreenletExit, getcurrent

from loadtests.fault_simulation.faults import mixed
from loadtests.fault_simulation.loop import Process, Task
from loadtests.fault_simulation.world import Store, World

PROCESSES = {"split": 2, "execute": 3, "aggregate": 2}
ONE_AT_A_TIME = {"execute"}
DELIVERY_MS = (1, 40)
LATE_MS = (100, 20_000)
VERY_LATE_MS = (60_000, 900_000)
DEADLINE_MS = 60_000  # how long the Broker waits for an answer
RETRIES = 6
BACKOFF_MS = 500
BUSY_MS = 20
QUEUE_MS = 1_000  # until a full activator ends a request
FULL = "pending request queue full"  # as the activator says it, not a function
UNANSWERED = {0, 429, 502, 504}  # no function has spoken
RETRIED = {0, 404, 408, 409, 429}  # and all from 500 on; 0 is no answer
SKEW_MS = (-5_000, 5_000)
COPY, WAY, LATE, VERY_LATE, CHOICE, SKEW, ORDER = range(2_000, 2_007)  # the dice's questions


class Delivery(msgspec.Struct, frozen=True):
    """One copy of an event on its way to a function; `place` names it to the dice."""

    event: Event
    route: str
    place: tuple[int, int]


class _Local:
    """What `threading.local` is to threads."""

    def __getattribute__(self, name: str) -> object:
        try:
            return getcurrent().__dict__[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        getcurrent().__dict__[name] = value


class Function(Process):
    """A process of one of the functions, as `transport.http.handler_context` makes it."""

    def __init__(self, name: str, world: World, skew_ms: int) -> None:
        super().__init__(name, skew_ms)
        store = Store(world)
        self.index = day_index.RequestIndex(store)  # type: ignore[arg-type]
        self.index._request = _Local()  # type: ignore[assignment]
        candles = CandleReader(self.index.days, store)  # type: ignore[arg-type]
        unchanged = Unchanged(lambda: world.loop.now)
        self.runtime = HandlerContext(
            store,
            self.index,
            candles,
            world.clock_ms,
            recall=self.index.recall,
            renew=self.index.renew,
            waves=world.waves,
            unchanged=unchanged,
        )
        self.requested = dedup.PublishDeduplicator()


class Broker:
    def __init__(self, world: World) -> None:
        self._world = world
        self._loop, self._dice = world.loop, world.dice
        self._copies: Counter[tuple[str, str]] = Counter()
        self._born: Counter[str] = Counter()
        self._processes: dict[tuple[str, int], Function] = {}
        self._waiting: dict[tuple[int, ...], int] = {}  # since when deliveries wait for an executor
        self.dropped = 0

    # -- events on their way ---------------------------------------------------------------------------------------

    def publish(self, event: Event) -> None:
        self._world.judge.saw_event(event)
        route = DEAD_LETTERS if event.error else ROUTES.get(event.type)
        if route is None:
            return
        number = int(event.id[:15], 16) if not event.error else mixed(int(event.id[:15], 16), len(event.error))
        copies = self._copies
        copies[event.id, event.error] += 1
        delivery = Delivery(event, route, (number, copies[event.id, event.error]))
        if self._world.hits("forgotten", *delivery.place):
            return
        self._send(delivery, 0, 0)
        if self._world.hits("duplicate", *delivery.place):
            copies[event.id, event.error] += 1
            self._send(msgspec.structs.replace(delivery, place=(number, copies[event.id, event.error])), 0, 0)

    def _send(self, delivery: Delivery, attempt: int, wait_ms: int) -> None:
        place = (*delivery.place, attempt)
        way = self._dice.between(*DELIVERY_MS, WAY, *place)
        if self._world.hits("late", *place):
            way = self._dice.between(*LATE_MS, LATE, *place)
        elif self._world.hits("very_late", *place):
            way = self._dice.between(*VERY_LATE_MS, VERY_LATE, *place)
        self._loop.after(wait_ms + way, bound(self._arrive, delivery, attempt))

    def _arrive(self, delivery: Delivery, attempt: int) -> None:
        place = (*delivery.place, attempt)
        if self._world.hits("lost", *place):
            self._loop.after(DEADLINE_MS, bound(self._answered, delivery, attempt, 0, "no answer"))
            return
        if delivery.route == "execute" and self._world.hits("queued", *delivery.place):
            self._loop.after(QUEUE_MS, bound(self._answered, delivery, attempt, 504, "activator request timeout"))
            return
        self._enter(delivery, attempt)

    def _enter(self, delivery: Delivery, attempt: int) -> None:
        """Hand a request to a process, or have it wait for one, as the activator does: few of them, not for long."""
        place = (*delivery.place, attempt)
        process = self._process(delivery.route, place)
        limits = self._world.activator
        if process is None:
            since = self._waiting.get(place)
            if limits is not None and since is None and len(self._waiting) >= limits.requests:
                self._answered(delivery, attempt, 503, FULL)
            elif limits is not None and since is not None and self._loop.now - since >= limits.ms:
                del self._waiting[place]
                self._answered(delivery, attempt, 504, "activator request timeout")
            else:
                self._waiting.setdefault(place, self._loop.now)
                self._loop.after(BUSY_MS, bound(self._enter, delivery, attempt))
            return
        self._waiting.pop(place, None)
        settled: list[int] = []
        serve = bound(self._serve, process, delivery, attempt, settled)
        self._loop.start(Task(serve, process, place))
        self._loop.after(DEADLINE_MS, bound(self._settle, settled, delivery, attempt, 0, "no answer in time"))

    def _settle(self, settled: list[int], delivery: Delivery, attempt: int, status: int, said: str) -> None:
        """The first word of an attempt counts."""
        if not settled:
            settled.append(status)
            self._answered(delivery, attempt, status, said)

    def _answered(self, delivery: Delivery, attempt: int, status: int, said: str) -> None:
        if 200 <= status < 300:
            return
        event = delivery.event
        if attempt < RETRIES and (status in RETRIED or status >= 500):
            self._send(delivery, attempt + 1, BACKOFF_MS << attempt)
        elif event.error:
            self._world.say(event.partitionkey[:6], "DROPPED", event.type[15:], event.id[:6])
            self._world.judge.saw_given_up(event)
            self.dropped += 1
        else:
            reason = f"{delivery.route} answered {status}: {said}"
            self._world.say(event.partitionkey[:6], "dead letter", event.type[15:], event.id[:6], reason)
            self.publish(msgspec.structs.replace(event, error=reason, unanswered=status in UNANSWERED or said == FULL))

    # -- processes -------------------------------------------------------------------------------------------------

    def _process(self, route: str, place: tuple[int, ...]) -> Function | None:
        """One of the function's processes, a new one in the place of one that died; None where all are busy."""
        first = self._dice.between(0, PROCESSES[route] - 1, CHOICE, *place)
        for k in range(PROCESSES[route]):
            number = (first + k) % PROCESSES[route]
            process = self._processes.get((route, number))
            if process is None or process.dead:
                self._processes[route, number] = process = self._new(route)
            if route not in ONE_AT_A_TIME or not process.tasks:
                return process
        return None

    def _new(self, route: str) -> Function:
        self._born[route] += 1
        place = (SKEW, len(route), self._born[route])
        skew = self._dice.between(*SKEW_MS, *place) if self._dice.hits("skew", SKEW) else 0
        return Function(f"{route}-{self._born[route]}", self._world, skew)

    def _serve(self, process: Function, delivery: Delivery, attempt: int, settled: list[int]) -> None:
        """What `transport.http.respond` does."""
        event, world = delivery.event, self._world
        output = (event.partitionkey[:6], process.name, "takes", event.type[15:], event.id[:6])
        world.say(*output, *delivery.place[1:], attempt, event.error)
        status, said = 202, ""
        try:
            if world.poisoned and not event.error:
                cloudevents._check_json(event)
            process.index.renew()
            with process.requested.new(handler(delivery.route)(event, process.runtime)) as answer:
                for one in self._in_some_order(answer, delivery.place):
                    world.publish(bound(self.publish, one))
        except CandlemillError as error:
            status, said = http._status(error), cloudevents.bounded_line(str(error))
        except GreenletExit:
            status, said = 0, "connection reset"
        except Exception as error:
            world.judge.says(f"{process.name} broke on {event.type}: {type(error).__name__}: {error}")
            status, said = 500, f"internal error: {type(error).__name__}"
        process.tasks -= 1
        world.say(event.partitionkey[:6], process.name, "answers", event.type[15:], event.id[:6], status, said)
        if status and world.hits("no_answer", *delivery.place, attempt):
            return
        self._loop.after(0, bound(self._settle, settled, delivery, attempt, status, said))

    def _in_some_order(self, answer: list[Event], place: tuple[int, ...]) -> list[Event]:
        """They are published by several threads at once."""
        return sorted(answer, key=lambda event: self._dice.uniform(ORDER, int(event.id[:15], 16), *place))
