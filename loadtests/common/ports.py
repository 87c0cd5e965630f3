"""Free ports of this machine."""

import socket
from contextlib import suppress
from random import SystemRandom

# Below those that Linux gives to clients and to whoever asks for port 0: until its process has started to listen,
# nobody else can get it.
RANGE = range(10_000, 32_000)


def free_port() -> int:
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port := SystemRandom().choice(RANGE)))
            return port
