"""What a swarm of users does, and what it says afterwards."""

import msgspec


class Orders(msgspec.Struct, frozen=True):
    """One stage: `kinds` names classes of users in the file `source` (none: all), `think` is their mean time in seconds
    before a request. The first `settle` seconds, in which users arrive, are not counted. Of the processes `pids`, by
    name, the CPU time is measured."""

    source: str
    host: str
    users: int
    seconds: float
    think: float = 1.0
    kinds: list[str] = []
    settle: float = 3.0
    seed: int = 0
    label: str = ""
    pids: dict[str, int] = {}


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One request that was answered: when, in seconds from the stage's first counted moment; its kind; how long it
    took; whether its answer was to be expected. A journey is several requests and is not counted as one."""

    at: float
    kind: str
    ms: float
    good: bool
    is_journey: bool = False


class Heard(msgspec.Struct, frozen=True):
    """All samples of a stage, how long it was, and up to a hundred errors in words."""

    seconds: float
    samples: list[Sample]
    errors: list[str]
    cores: dict[str, float]  # cores' worth of CPU time over it: of the processes requested, the swarm, all others
