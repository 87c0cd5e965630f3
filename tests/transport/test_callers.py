"""Tokens of callers, by keys made here and served on loopback; and where dead letters end that nobody can use."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import flask
import pytest
from candlemill import config
from candlemill.errors import BadInput, CallerRefused, KeysDown, StoreDown
from candlemill.pipeline import events
from candlemill.pipeline.events import Event
from candlemill.telemetry import instrument
from candlemill.transport import callers, dedup, http
from werkzeug.test import EnvironBuilder

jwt = pytest.importorskip("jwt")
from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: E402

ISSUER, AUDIENCE = "https://kubernetes.default.svc", "candlemill-functions"
SUBJECT = "system:serviceaccount:candlemill:"
KEYS = {
    "ec": ("ES256", ec.generate_private_key(ec.SECP256R1())),
    "rsa": ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "new": ("ES256", ec.generate_private_key(ec.SECP256R1())),
}
JOB = "0123456789abcdef" * 2


def public(name: str) -> dict[str, Any]:
    algorithm, key = KEYS[name]
    to_jwk = jwt.algorithms.get_default_algorithms()[algorithm].to_jwk
    return {**json.loads(to_jwk(key.public_key())), "kid": name, "alg": algorithm, "use": "sig"}


def token(key: str = "ec", kid: str | None = None, algorithm: str | None = None, **claims: Any) -> str:
    now = int(time.time())
    claimed = {"iss": ISSUER, "aud": [AUDIENCE], "sub": f"{SUBJECT}trigger", "iat": now, "exp": now + 600, **claims}
    claimed = {name: value for name, value in claimed.items() if value is not None}
    return str(
        jwt.encode(claimed, KEYS[key][1], algorithm or KEYS[key][0], headers={"kid": key if kid is None else kid})
    )


class Issuer:
    """Serves keys on loopback, and counts how often."""

    def __init__(self) -> None:
        self.names = ["ec", "rsa"]
        self.status, self.reads, self.body = 200, 0, b""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.reads += 1
                body = issuer.body or json.dumps({"keys": [public(name) for name in issuer.names]}).encode()
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/openid/v1/jwks"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def check(issuer: Issuer) -> callers.CallerCheck:
    return callers.CallerCheck(callers.Allowed(AUDIENCE, ISSUER, issuer.url, SUBJECT))


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_a_token_for_this_audience_is_accepted(check: callers.CallerCheck, key: str, issuer: Issuer) -> None:
    check(bearer(token(key)))
    check({"authorization": f"bearer {token(key, aud=AUDIENCE)}"})
    assert issuer.reads == 1


def unsigned() -> str:
    _, body, _ = token().split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "ec"}).encode()).decode().rstrip("=")
    return f"{none}.{body}."


def of_another_claim() -> str:
    """Signed for one account, claimed of another."""
    head, _, signature = token(sub="system:serviceaccount:other:x").split(".")
    return ".".join([head, token().split(".")[1], signature])


def signed_with_the_public_key() -> str:
    """By HMAC with the published key as its secret, as libraries once accepted it."""
    now = int(time.time())
    claimed = {"iss": ISSUER, "aud": AUDIENCE, "sub": f"{SUBJECT}x", "iat": now, "exp": now + 600}
    return str(jwt.encode(claimed, public("ec")["x"], "HS256", headers={"kid": "ec"}))


REFUSED = {
    "none": lambda: "",
    "no token": lambda: "abc",
    "another audience": lambda: token(aud="other"),
    "another issuer": lambda: token(iss="https://elsewhere"),
    "another namespace's account": lambda: token(sub="system:serviceaccount:other:trigger"),
    "expired": lambda: token(exp=int(time.time()) - 3_600),
    "of the future": lambda: token(nbf=int(time.time()) + 3_600),
    "without an end": lambda: token(exp=None),
    "without an account": lambda: token(sub=None),
    "without an audience": lambda: token(aud=None),
    "signed with another key": lambda: token("new", kid="ec"),
    "a key that the issuer does not have": lambda: token("new"),
    "unsigned": unsigned,
    "claimed for another account": of_another_claim,
    "signed with the public key": signed_with_the_public_key,
    "too long": lambda: "a" * 20_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_token_is_refused(check: callers.CallerCheck, name: str) -> None:
    with pytest.raises(CallerRefused):
        check(bearer(REFUSED[name]()))
    for headers in ({}, {"Authorization": f"Basic {token()}"}, {"Authorization": token()}):
        with pytest.raises(CallerRefused, match="no token"):
            check(headers)


def test_a_new_key_is_found_and_unknown_ones_are_not_looked_for_often(
    issuer: Issuer, check: callers.CallerCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e6]
    monkeypatch.setattr(callers.time, "monotonic", lambda: now[0])
    check(bearer(token()))
    issuer.names.append("new")
    for _ in range(20):
        with pytest.raises(CallerRefused, match="none of the issuer's"):
            check(bearer(token("new")))
    assert issuer.reads == 1
    now[0] += callers.AGAIN_SECONDS
    check(bearer(token("new")))
    assert issuer.reads == 2
    issuer.names.remove("ec")
    check(bearer(token()))
    now[0] += callers.KEYS_SECONDS
    with pytest.raises(CallerRefused):  # a key that was taken back
        check(bearer(token()))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"keys":[]}', b"x" * 2_000_000])
def test_keys_that_cannot_be_read_are_requested_again(issuer: Issuer, check: callers.CallerCheck, body: bytes) -> None:
    issuer.body, issuer.status = body, 200 if body else 500
    with pytest.raises(KeysDown):
        check(bearer(token()))
    assert http._status(KeysDown("x")) == 503
    issuer.body, issuer.status = b"", 200
    check(bearer(token()))


# -- over HTTP -----------------------------------------------------------------------------------------------------


HEADERS = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "content-type": "application/json"}


@pytest.fixture(autouse=True)
def handled(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    monkeypatch.setattr(http, "_check", [])
    monkeypatch.setattr(http, "handler_context", lambda: None)
    monkeypatch.setattr(http, "_published", dedup.PublishDeduplicator())
    return []


def post(handled: list[Event], error: Exception | None = None, body: bytes = b"{}", **headers: str) -> tuple[int, str]:
    def handle(event: Event, context: object) -> list[Event]:
        handled.append(event)
        if error is not None:
            raise error
        return []

    claimed = HEADERS | {"ce-type": events.SLICE_REQUESTED} | {k.replace("_", "-"): v for k, v in headers.items()}
    made = EnvironBuilder(method="POST", headers=claimed, data=body)
    text, status, _ = http.respond(flask.Request(made.get_environ()), handle)
    return status, text


def test_functions_ask_for_tokens_where_the_settings_say_so(
    issuer: Issuer, handled: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert post(handled) == (202, "") and http._check == [None]
    values = {
        config.AUDIENCE_VARIABLE: AUDIENCE, config.ISSUER_VARIABLE: ISSUER, config.SUBJECT_VARIABLE: SUBJECT,
        config.JWKS_VARIABLE: issuer.url,
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    http._check.clear()
    status, text = post(handled)
    assert status == 401 and json.loads(text)["title"] == "caller_refused" and len(handled) == 1
    assert post(handled, Authorization=f"Bearer {token(aud='other')}")[0] == 401
    assert post(handled, Authorization=f"Bearer {token()}") == (202, "") and len(handled) == 2
    issuer.server.server_close()
    http._check.clear()
    issuer.status = 500
    assert post(handled, Authorization=f"Bearer {token()}")[0] == 503
    probe = EnvironBuilder(method="GET", path="/healthz")
    assert http.respond(flask.Request(probe.get_environ()), lambda event, context: [])[1] == 200


@pytest.mark.parametrize("name", [config.AUDIENCE_VARIABLE, config.JWKS_VARIABLE, config.SUBJECT_VARIABLE])
def test_half_of_the_settings_let_nobody_in(name: str, handled: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "https://x")
    with pytest.raises(BadInput, match="is not set: tokens are checked with all of"):
        callers.allowed()
    assert post(handled)[0] == 422 and not handled


def test_keys_have_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (config.AUDIENCE_VARIABLE, config.ISSUER_VARIABLE, config.SUBJECT_VARIABLE):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv(config.JWKS_VARIABLE, "file:///etc/passwd")
    with pytest.raises(BadInput, match="is no address"):
        callers.allowed()


# -- the last sink ---------------------------------------------------------------------------------------------------


def refused() -> float:
    return sum(instrument.REFUSED_DEAD_LETTERS._values.values())


@pytest.mark.parametrize(
    ("error", "body", "status"),
    [
        (BadInput("nonsense"), b"{}", 202),
        (ValueError("a bug"), b"{}", 202),
        (None, b"{", 202),  # its data may be why it was given up
        (StoreDown("away"), b"{}", 503),
    ],
)
def test_a_dead_letter_that_nobody_can_use_is_logged_and_counted_once(
    error: Exception | None, body: bytes, status: int, handled: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """Refused, it would be delivered again, or be lost without a word."""
    before = refused()
    letter = {"ce_knativeerrordest": "http://execute", "ce_knativeerrorcode": "422", "ce_partitionkey": JOB}
    assert post(handled, error, body, **letter)[0] == status
    lost = int(error is not None and status == 202)
    assert refused() - before == lost
    assert ("goes no further" in caplog.text) == bool(lost)
    if error is not None:
        assert post(handled, error, body)[0] != 202, "what is no dead letter becomes one"


def test_a_dead_letter_that_cannot_be_read_is_logged_and_counted(
    handled: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    before = refused()
    bad = {"ce_id": "", "ce_knativeerrorcode": "500"}
    assert post(handled, None, b"\x00 no\nJSON", **bad) == (202, "")
    structured = json.dumps({"knativeerrorcode": "500", "specversion": "1.0"}).encode()
    made = EnvironBuilder(method="POST", headers={"content-type": "application/cloudevents+json"}, data=structured)
    assert http.respond(flask.Request(made.get_environ()), lambda event, context: [])[1] == 202
    assert refused() - before == 2 and not handled
    assert caplog.text.count("a dead letter goes no further") == 2 and "no JSON" in caplog.text
