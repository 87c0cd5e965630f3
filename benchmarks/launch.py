"""Run a command and tell its wall time, the processor time of all its processes, and the peak memory of the largest
one, as JSON on the last line.

    python -S launch.py COMMAND …

A process of its own, and a small one: the peak that Linux reports for a child includes that of the process that
started it.
"""

import json
import resource
import subprocess
import sys
import time

begin = time.perf_counter_ns()
found = subprocess.run(sys.argv[1:], capture_output=True, check=False)
wall = time.perf_counter_ns() - begin
used = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
cpu = round((used.ru_utime + used.ru_stime) * 1e9)
error = found.stderr.decode(errors="replace")[-2000:] if found.returncode else ""
print(json.dumps({"status": found.returncode, "wall_ns": wall, "cpu_ns": cpu, "peak_bytes": peak, "error": error}))
