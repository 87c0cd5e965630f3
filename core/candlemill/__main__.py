"""The program: `candlemill`, and `python -m candlemill` where its script is not on the path."""

import gc
import signal
import sys


def run() -> int:
    """The command line's status. Ctrl-C while modules are imported ends the process at once: they cannot tell of it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # what is imported stays: looking for garbage among it takes a tenth of the start
    from candlemill.cli.main import main

    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, before)
    return main()


if __name__ == "__main__":
    sys.exit(run())
