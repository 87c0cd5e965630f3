"""What the environment says of who may ask."""

import os
from pathlib import Path

from candlemill.errors import BadInput, UnsafeHost
from candlemill.io.gateway.guards import REQUESTS_PER_MINUTE, Access
from candlemill.io.gateway.keys import Keys
from candlemill.io.webserver import is_loopback

KEYS_VARIABLE = "CANDLEMILL_API_KEYS"
ORIGINS_VARIABLE = "CANDLEMILL_CORS_ORIGINS"
LIMIT_VARIABLE = "CANDLEMILL_REQUESTS_PER_MINUTE"
NO_KEYS = "off"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def access_of(host: str) -> Access:
    """Without keys on loopback only, unless they are switched off by name. Raises UnsafeHost, BadInput."""
    given = os.environ.get(KEYS_VARIABLE, "").strip()
    origins = frozenset(filter(None, os.environ.get(ORIGINS_VARIABLE, "").replace(",", " ").split()))
    if is_loopback(host) and not given:
        return Access(LOOPBACK_NAMES, origins, None, None)
    if not given:
        raise UnsafeHost(
            f"refusing to listen on {host} without keys: {KEYS_VARIABLE}=FILE names those who may ask "
            f"(`candlemill key NAME >> FILE`), {KEYS_VARIABLE}={NO_KEYS} lets anyone"
        )
    keys = None if given == NO_KEYS else Keys(Path(given))
    limit = os.environ.get(LIMIT_VARIABLE, str(REQUESTS_PER_MINUTE))
    if not limit.isdecimal() or not int(limit):
        raise BadInput(f"{LIMIT_VARIABLE}={limit!r} is not a whole number from 1 on")
    return Access(frozenset(), origins, keys, int(limit))
