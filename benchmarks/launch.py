"""Run a command and tell its wall time and the peak memory of its largest process, as JSON on the last line.

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
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
error = found.stderr.decode(errors="replace")[-2000:] if found.returncode else ""
print(json.dumps({"status": found.returncode, "wall_ns": wall, "peak_bytes": peak, "error": error}))
