"""Who may call a function: whoever brings a token (OIDC) of Kubernetes for this audience and of an allowed account.

Eventing sends such a token where `authentication-oidc` is enabled and a Trigger names an audience. Without the setting
of an audience nothing is checked.
"""

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import urllib3

from candlemill import config
from candlemill.errors import BadInput, CallerRefused, KeysDown

ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]  # of public keys only
REQUIRED = ["exp", "iat", "aud", "iss", "sub"]
KEYS_SECONDS = 300.0  # how long keys are used without being read again
AGAIN_SECONDS = 10.0  # at least, between two reads for a key that is not known
LEEWAY_SECONDS = 30  # between the clocks of two machines
KEYS_BYTES, TOKEN_LETTERS = 1 << 20, 16_384
TIMEOUT = urllib3.Timeout(connect=5, read=10)


class Allowed(msgspec.Struct, frozen=True):
    """Which tokens are accepted. `keys` is the address of the issuer's JWKS; `subject` is how an account's name
    begins, such as `system:serviceaccount:candlemill:`."""

    audience: str
    issuer: str
    keys: str
    subject: str


def allowed() -> Allowed | None:
    """Return what the settings allow; None where no audience is set. Raises BadInput if only some are set."""
    names = (config.AUDIENCE_VARIABLE, config.ISSUER_VARIABLE, config.JWKS_VARIABLE, config.SUBJECT_VARIABLE)
    values = [config.setting(name) for name in names]
    if not any(values):
        return None
    for name, value in zip(names, values, strict=True):
        if not value:
            raise BadInput(f"{name} is not set: tokens are checked with all of {', '.join(names)}, or with none")
    if not values[2].startswith(("https://", "http://")):
        raise BadInput(
            f"{config.JWKS_VARIABLE}={values[2][:80]} is no address: write it like https://host/openid/v1/jwks"
        )
    return Allowed(*values)


class CallerCheck:
    """Check of tokens, with the issuer's keys in memory."""

    def __init__(self, accepted: Allowed) -> None:
        self._accepted = accepted
        self._keys: dict[str, Any] = {}  # by their ids
        self._read_at = -KEYS_SECONDS
        self._lock = threading.Lock()
        self._http = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    def __call__(self, headers: Mapping[str, str]) -> None:
        """Accept a request by its headers. Raises CallerRefused, and KeysDown if the issuer's keys cannot be read."""
        import jwt  # imported late: most functions check no token

        found = next((value for name, value in headers.items() if name.lower() == "authorization"), "")
        scheme, _, token = found.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise CallerRefused("the request has no token: send events to the Broker, which adds one")
        if len(token) > TOKEN_LETTERS:
            raise CallerRefused(f"the token has {len(token):,} letters, the limit is {TOKEN_LETTERS:,}")
        try:
            key = self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._accepted.audience,
                issuer=self._accepted.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": REQUIRED},
            )
        except jwt.InvalidTokenError as error:
            raise CallerRefused(f"the token is not accepted: {error}") from None
        if not str(claims["sub"]).startswith(self._accepted.subject):
            raise CallerRefused(f"the token is of {str(claims['sub'])[:120]!r}: no account that may call this function")

    def _key(self, key_id: str) -> Any:
        """Return the issuer's key; unknown ones are looked for again, but not often."""
        with self._lock:
            age = time.monotonic() - self._read_at
            if age >= KEYS_SECONDS or (key_id not in self._keys and age >= AGAIN_SECONDS):
                self._keys, self._read_at = self._read(), time.monotonic()
            if key_id not in self._keys:
                raise CallerRefused("the token is not accepted: its key is none of the issuer's")
            return self._keys[key_id]

    def _read(self) -> dict[str, Any]:
        import jwt

        address = self._accepted.keys
        try:
            with self._http.request("GET", address, preload_content=False, redirect=False) as answer:
                body = answer.read(KEYS_BYTES + 1)
            if answer.status != 200 or len(body) > KEYS_BYTES:
                raise KeysDown(f"{address} answered {answer.status} with {len(body):,} bytes instead of keys")
            found = jwt.PyJWKSet.from_dict(json.loads(body))
        except (urllib3.exceptions.HTTPError, jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise KeysDown(f"the keys of {address} cannot be read: {error}") from None
        return {str(key.key_id): key for key in found.keys}
