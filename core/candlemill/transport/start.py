"""Run a program as the first process of a container: `python -m candlemill.transport.start FILE [ARGUMENT …]`.

The kernel gives process 1 no signal that it does not handle. A pod that is ended while its program is still imported
would therefore wait for the whole of its grace period: ten minutes, as long as a request of Serving.
"""

import os
import runpy
import signal
import sys
from typing import Final

ENDED: Final = 128 + signal.SIGTERM


def end_on_sigterm() -> None:
    """End the process at SIGTERM, until the program has a handler of its own."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(ENDED))


if __name__ == "__main__":
    end_on_sigterm()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
