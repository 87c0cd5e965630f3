"""For processes under faketime: Python sleeps until a time of the monotonic clock, from which faketime 0.9.10 takes the
shift of the wall clock, and the kernel refuses what is left. `select` waits for a span."""

import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
