"""What a crash does: end the process. The embedded database would have it wait for a report that never comes."""

import signal
import threading

FATAL = ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")


def restore() -> None:
    """Take back the handlers that the embedded database sets when it is opened: with them an aborted process hangs for
    ever. Only a main thread can; others leave them."""
    if threading.current_thread() is threading.main_thread():
        for name in FATAL:
            signal.signal(signal.Signals[name], signal.SIG_DFL)
