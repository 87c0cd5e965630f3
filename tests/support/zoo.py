"""Strategies that misbehave, each in its own way; `Tame` does not."""

import ctypes
import os
import re
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
from candlemill.engine.candles import Bars
from candlemill.errors import BeingWritten, Cancelled, Stopped
from candlemill.strategies import Bar, Stateful, Windowed


class Tame(Windowed, frozen=True):
    back: int = 3

    def lookback(self) -> int:
        return self.back

    def positions(self, bars: Bars) -> Any:
        return bars.close > bars.open


# -- what ends a process or a thread -------------------------------------------------------------------------------


class Exits(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        sys.exit(0)


class ExitsWithSecret(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise SystemExit("secret")


class Interrupts(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise KeyboardInterrupt


class ClosesGenerator(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise GeneratorExit


class StopsIteration(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise StopIteration


class Base(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise BaseException("secret")


class Leaves(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        os._exit(0)


class Crashes(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        return ctypes.string_at(0)


class Aborts(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        os.abort()


class KillsItself(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


class KillsItsGroup(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        os.killpg(0, signal.SIGTERM)
        time.sleep(60)


# -- what never ends -----------------------------------------------------------------------------------------------


class Loops(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        while True:
            pass


class Sleeps(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        time.sleep(3600)


class LoopsInC(Tame, frozen=True):
    """A search that backtracks for ever, and keeps the interpreter's lock."""

    def positions(self, bars: Bars) -> Any:
        return re.match("(a+)+$", "a" * 64 + "b")


class Locks(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        lock = threading.Lock()
        with lock:
            lock.acquire()


class IgnoresTerm(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                time.sleep(3600)
            except BaseException:
                continue


class StepsForEver(Stateful, frozen=True):
    def start(self) -> Any:
        return (0,)

    def step(self, state: Any, bar: Bar) -> tuple[int, Any]:
        while state:
            pass
        return 0, state


# -- what takes too much -------------------------------------------------------------------------------------------


class Hoards(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        kept = []
        while True:
            kept.append(np.ones(1 << 24))


class AsksForTooMuch(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        return np.ones(1 << 46)


class Recurses(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        return self.positions(bars)


# -- what claims to be something else ------------------------------------------------------------------------------


class SaysStopped(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise Stopped("the process ends")


class SaysCancelled(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise Cancelled("cancelled")


class SaysLater(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise BeingWritten("try again")


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


class CannotSay(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise Mute


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("no")


class CannotTravel(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        raise Unpicklable("secret")


# -- what plans go by ----------------------------------------------------------------------------------------------


class NegativeLookback(Tame, frozen=True):
    def lookback(self) -> int:
        return -5


class EndlessLookback(Tame, frozen=True):
    def lookback(self) -> int:
        return 10**30


class ExitsInLookback(Tame, frozen=True):
    def lookback(self) -> int:
        sys.exit(0)


class ExitsWhenMade(Tame, frozen=True):
    def __post_init__(self) -> None:
        sys.exit(0)


class OddNeeds(Tame, frozen=True):
    def needs(self) -> Any:
        return 7


# -- what answers nonsense -----------------------------------------------------------------------------------------


class Array:
    def __array__(self, *_: object, **__: object) -> Any:
        sys.exit(0)


class OddArray(Tame, frozen=True):
    def positions(self, bars: Bars) -> Any:
        return Array()


class OddDecision(Tame, frozen=True):
    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> Any:
        return np.zeros(1, np.int8), b""


class OddMemory(Tame, frozen=True):
    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> Any:
        return np.zeros(hi - lo, np.int8), "memory"
