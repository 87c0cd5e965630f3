"""The program: `candlemill`, and `python -m candlemill` where its script is not on the path."""

import signal
import sys


def run() -> int:
    """The command line's status. Ctrl-C while modules are imported ends the process at once: they cannot tell of it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from candlemill.cli.main import main

    signal.signal(signal.SIGINT, before)
    return main()


if __name__ == "__main__":
    sys.exit(run())
