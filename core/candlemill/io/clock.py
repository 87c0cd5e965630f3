"""The wall clock, for whoever is handed one."""

import time


def clock_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
