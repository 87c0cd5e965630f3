"""State that one slice hands to the next: the engine's and the strategy's, as canonical bytes, and its digest."""

import hashlib
from functools import lru_cache

from candlemill.engine.summary import CarriedState

COLD = b"0,0,0,0,0,0|"
HALVES = b"\x1e"  # between the states of both paths; no state has it: text is escaped, keys are printable


@lru_cache(4096)
def digest_of(state: bytes) -> str:
    """Return the digest of a state; of two paths' states that of their digests, so that it is known without them."""
    worst, best = states_of(state)
    return digest_of_both(_digest(worst), _digest(best))


def _digest(state: bytes) -> str:
    return hashlib.sha256(state).hexdigest()[:16]


def digest_of_both(worst: str, best: str) -> str:
    return worst if worst == best else _digest(f"{worst} {best}".encode())


def states_of(state: bytes) -> tuple[bytes, bytes]:
    """Return the states of the worst and of the best path; the same one twice where they do not differ."""
    worst, halves, best = state.partition(HALVES)
    return worst, best if halves else worst


def join_state(state: CarriedState, memory: bytes) -> bytes:
    """Join the engine's state and the strategy's own into canonical bytes."""
    return state.to_bytes() + b"|" + memory


def split_state(data: bytes) -> tuple[CarriedState, bytes]:
    state, _, memory = data.partition(b"|")
    return CarriedState.from_bytes(state), memory
