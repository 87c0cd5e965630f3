"""The gateway's access policy, from the environment."""

from pathlib import Path

from candlemill.config import KEYS_VARIABLE, LIMIT_VARIABLE, ORIGINS_VARIABLE, setting
from candlemill.errors import BadInput, UnsafeHost
from candlemill.gateway.api_keys import ApiKeys
from candlemill.gateway.security import REQUESTS_PER_MINUTE, AccessPolicy
from candlemill.transport.asgi import is_loopback

NO_KEYS = "off"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def access_of(host: str) -> AccessPolicy:
    """Return the access policy. Without keys, the gateway serves loopback only, unless keys are disabled explicitly.
    Raises UnsafeHost, BadInput."""
    given = setting(KEYS_VARIABLE)
    origins = frozenset(filter(None, setting(ORIGINS_VARIABLE).replace(",", " ").split()))
    if is_loopback(host) and not given:
        return AccessPolicy(LOOPBACK_NAMES, origins, None, None)
    if not given:
        raise UnsafeHost(
            f"refusing to listen on {host} without keys: {KEYS_VARIABLE}=FILE names those who may ask "
            f"(`candlemill key NAME >> FILE`), {KEYS_VARIABLE}={NO_KEYS} lets anyone"
        )
    keys = None if given == NO_KEYS else ApiKeys(Path(given))
    limit = setting(LIMIT_VARIABLE, str(REQUESTS_PER_MINUTE))
    if not limit.isdecimal() or not int(limit):
        raise BadInput(f"{LIMIT_VARIABLE}={limit!r} is not a whole number from 1 on")
    return AccessPolicy(frozenset(), origins, keys, int(limit))
