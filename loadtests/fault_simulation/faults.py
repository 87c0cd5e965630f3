"""What goes wrong, how often, from a seed.

Every question to the dice names the place in the run where it is made, and its answer is a function of the seed
and that place alone. So a run can be repeated with some of its faults left out, and the others stay where they were.
"""

from collections import Counter
from collections.abc import Collection

MASK = (1 << 64) - 1

# The highest rate of each kind of fault, per place where it can happen. A run has each kind, or does not, and has it at
# a rate of its own: runs in which all things fail all the time end the same way.
RATES = {
    "duplicate": 0.3,  # a delivery is made twice
    "late": 0.2,  # a delivery comes after seconds, other ones overtake it
    "very_late": 0.03,  # after minutes
    "lost": 0.1,  # a delivery does not arrive, the Broker hears nothing and tries again
    "queued": 0.05,  # a task waits for an executor until the activator ends it, at each try
    "no_answer": 0.1,  # the function has done its work, the Broker does not hear of it
    "forgotten": 0.02,  # the Broker took an event and loses it: nobody tries again
    "crash_before": 0.02,  # the process dies before a write or a publication
    "crash_after": 0.02,  # and after
    "slow": 0.03,  # a call takes longer than the Broker waits
    "stale": 0.3,  # a read is of a replica that lags
    "down": 0.03,  # a call of the store is refused
    "down_after": 0.03,  # a write is done, and is said to have failed
    "torn": 0.03,  # a write is done in part
    "sink_down": 0.03,  # an event is not taken
    "lost_rows": 0.1,  # candles that are read lack some, and the store says nothing
}
ABSENT = 0.6  # the share of runs that do not have one of these
# Once in a run, or not at all: their share of all runs.
EVENTS = {
    "outage": 0.1,  # the store is down for minutes
    "correction": 0.2,  # a candle is corrected while jobs run
    "poison": 0.15,  # events that nobody should send
    "cancel": 0.2,
    "again": 0.4,  # another client asks for the same
    "afresh": 0.1,  # and wants it computed anew
    "skew": 0.3,  # clocks differ by seconds
    "step": 0.2,  # clocks are set, by minutes to days
    "activator": 0.4,  # few requests may wait for an executor, and none for long
}
# What must not keep a job from its end: with these alone it is done.
BENIGN = {"duplicate", "late", "queued", "no_answer", "again", "afresh", "skew", "stale", "activator"}
# What can come between the write of a job's end and the telling of it.
UNSAID = {"crash_before", "crash_after", "down", "down_after", "sink_down", "outage"}

Fault = tuple[str, tuple[int, ...]]


def mixed(*numbers: int) -> int:
    """53 bits that depend on all of the numbers, none of which is negative.

    CPython's hash of a tuple of integers is the same in every process, and fast; it lacks steps that spread its bits.
    """
    h = hash(numbers) & MASK
    h = ((h ^ h >> 32) * 0xFF51AFD7ED558CCD) & MASK
    return (h ^ h >> 29) >> 11


class Dice:
    """`limits` are the rates of what can go wrong now. `only`, where given, are the faults that may happen; `fired` are
    those that did."""

    def __init__(self, seed: int, only: Collection[Fault] | None = None) -> None:
        self._seed = seed
        self._only = only
        self._numbers = {name: k for k, name in enumerate([*RATES, *EVENTS])}
        self.limits = dict(EVENTS)
        for k, (name, rate) in enumerate(RATES.items()):
            if (share := self.uniform(MASK, k)) > ABSENT:
                self.limits[name] = rate * (share - ABSENT) / (1 - ABSENT)
        self.fired: list[Fault] = []

    def uniform(self, *place: int) -> float:
        """A number from 0 to 1 that belongs to the place."""
        return mixed(self._seed, *place) / (1 << 53)

    def between(self, low: int, high: int, *place: int) -> int:
        """A whole number from low to high."""
        return low + mixed(self._seed, *place) % (high - low + 1)

    def hits(self, name: str, *place: int) -> bool:
        limit = self.limits.get(name)
        if limit is None or self.uniform(self._numbers[name], *place) >= limit:
            return False
        fault = (name, place)
        if self._only is not None and fault not in self._only:
            return False
        self.fired.append(fault)
        return True

    def rest(self) -> None:
        """From now on nothing fails."""
        self.limits.clear()

    def counts(self) -> Counter[str]:
        return Counter(name for name, _ in self.fired)
