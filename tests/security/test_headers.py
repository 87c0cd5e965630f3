"""Headers that lie, hide or grow; keys; and what a log line can be made to say."""

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from candlemill.errors import StoreError
from candlemill.gateway import access, api_keys
from candlemill.gateway.access import AccessPolicy, access_of
from candlemill.gateway.api_keys import ApiKeys, make_key
from candlemill.gateway.app import create_app
from candlemill.gateway.job_service import JobService
from candlemill.pipeline import events
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.telemetry import logs
from candlemill.transport.asgi import HEAD_BYTES_MAX
from litestar.middleware import rate_limit
from litestar.testing import TestClient

from security.conftest import Served
from security.desk import Desk

ABOUT = "/api/v1/about"


def head(path: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *lines, "Connection: close", "", "")).encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.fixture(scope="module")
def guarded(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The app with keys and a limit of 20 requests a minute, a key, and its file."""
    key, line = make_key("alice")
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(line)
    return JobService(desk.store, lambda published: None), key, file


# -- who asks ------------------------------------------------------------------------------------------------------


def test_no_spelling_of_a_path_needs_no_key(served: Served) -> None:
    for path in (
        "/api/v1/symbols",
        "//api/v1/symbols",
        "/api//v1/symbols",
        "/%61pi/v1/symbols",
        "/api/v1/symbols/",
        "/%2fapi/v1/symbols",
        "http://y/api/v1/symbols",
        "/api/v1/symbols?/healthz",
        "/api/v1/symbols#/healthz",
        "/api/v1/symbols;x",
        "/api/v1/symbols%20",
        "//metrics",
        "/metrics/",
        "/metrics%3f",
        "/healthz/../metrics",
        "/%0aapi/v1/symbols",
        "/api/%0av1/symbols",
        "/API/v1/symbols",
        "/api/v1/symbols%3f",
        "///api/v1/symbols",
        "/api/v1/%73ymbols",
        "/x//api/v1/symbols",
    ):
        answer = served.raw(head(path))
        assert status(answer) in (400, 401, 404), (path, answer[:100])
        assert b"AAAUSDT" not in answer and b"candlemill_gateway" not in answer, path
    assert b"AAAUSDT" in served.raw(head("/api/v1/symbols", f"Authorization: Bearer {served.key}"))


def test_two_headers_of_a_kind_do_not_add_up(served: Served) -> None:
    sound, wrong = f"Authorization: Bearer {served.key}", "Authorization: Bearer cm_wrong"
    for lines in (
        (wrong, wrong),
        (wrong, f"X-API-Key: {served.key}"),
        ("Authorization: Basic x", "X-API-Key: cm_wrong"),
        ("Authorization: Bearer",),
        ("X-API-Key:",),
        (f"X-API-Key: {served.key}x",),
        (f"Authorization: Bearer {served.key[:-1]}",),
        ("Cookie: key=" + served.key,),
    ):
        assert status(served.raw(head(ABOUT, *lines))) == 401, lines
    assert status(served.raw(head(f"{ABOUT}?key={'x' * 9}&api_key=1"))) == 401
    assert status(served.raw(head(ABOUT, sound))) == 200


def test_a_limit_is_not_dodged_by_other_headers(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, a key that nobody knows began a count of its own."""
    monkeypatch.setattr(rate_limit, "time", lambda: 1_700_000_000.0)  # one minute, however long it takes
    world, key, file = guarded
    access = AccessPolicy(keys=ApiKeys(file), per_minute=20)
    with TestClient(create_app(world, access)) as client:
        for k in range(60):
            spoofed = {
                "Authorization": f"Bearer cm_{k}",
                "X-API-Key": f"x{k}",
                "X-Forwarded-For": f"10.0.0.{k}",
                "X-Real-IP": f"10.1.0.{k}",
                "Forwarded": f"for=10.2.0.{k}",
                "Client-IP": f"10.3.0.{k}",
                "Host": f"h{k}",
                "User-Agent": f"a{k}",
                "Cookie": f"s={k}",
            }
            answer = client.get(ABOUT, headers=spoofed)
            assert answer.status_code == (401 if k < 20 else 429), k
        for k in range(25):  # whoever has a key is counted alone, however it is spelt
            named = {"X-API-Key": key} if k % 2 else {"Authorization": f"{'bEaReR' if k % 3 else 'Bearer'}  {key} "}
            answer = client.get(ABOUT, headers={**named, "X-Forwarded-For": f"10.0.0.{k}"})
            assert answer.status_code == (200 if k < 20 else 429), k
    with TestClient(create_app(world, AccessPolicy(per_minute=20))) as client:  # nobody needs a key: all are addresses
        found = [client.get(ABOUT, headers={"Authorization": f"Bearer {k}"}).status_code for k in range(30)]
        assert found == [200] * 20 + [429] * 10


def test_an_ipv6_network_is_one_caller() -> None:
    assert (
        access._network("2001:db8:1:2::1")
        == access._network("2001:db8:1:2:ffff::9")
        != access._network("2001:db8:1:3::1")
    )
    assert access._network("192.0.2.1") != access._network("192.0.2.2")
    assert access._network("unix") == "unix"


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of them, by their digests: neither where a guess differs nor whose key it is near shows in the time."""
    made = [make_key(f"n{k}") for k in range(5)]
    (tmp_path / "keys").write_text("\n".join(line for _, line in made))
    seen = []
    real = api_keys.hmac.compare_digest
    monkeypatch.setattr(api_keys.hmac, "compare_digest", lambda a, b: seen.append((a, b)) or real(a, b))
    assert ApiKeys(tmp_path / "keys").name_of(made[0][0]) == "n0"
    digest = hashlib.sha256(made[0][0].encode()).hexdigest()
    assert seen == [(line.split()[1], digest) for _, line in made]


def test_origins_and_hosts_that_are_no_addresses(guarded: Any) -> None:
    world, _, _ = guarded
    with TestClient(
        create_app(world, AccessPolicy(hosts=frozenset({"here.local"}), per_minute=None)), "http://here.local"
    ) as client:
        for origin in (
            "http://[",
            "null",
            "",
            "http://here.local.evil.example",
            "http://here.local@evil.example",
            "//here.local:1",
            "https://[::1]]",
            "javascript:1",
            "http://evil.example\\@here.local",
        ):
            answer = client.get(ABOUT, headers={"Origin": origin})
            assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (403, False), origin
        for host in (
            "[::1",
            "evil.example",
            "here.local.evil.example",
            "here.local@evil.example",
            "evil.example:80",
            "127.0.0.1",
        ):
            assert client.get(ABOUT, headers={"Host": host}).status_code in (400, 403), host
        assert client.get(ABOUT).status_code == 200


def test_nobody_listens_beyond_this_machine_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from candlemill.errors import UnsafeHost

    monkeypatch.delenv("CANDLEMILL_API_KEYS", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com", "127.0.0.1.evil.example", "localhost.evil.example"):
        with pytest.raises(UnsafeHost):
            access_of(host)


# -- what is sent --------------------------------------------------------------------------------------------------


def test_a_head_is_bounded(served: Served) -> None:
    """Before, uvicorn's quick protocol took in whatever came."""
    line = b"X-A: " + b"a" * 8_000 + b"\r\n"
    for pieces in (
        [head("/healthz")[:-2], *[line] * 4_000, b"\r\n"],
        [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", *[b"a" * 100_000] * 300, b"\r\n\r\n"],
        [b"GET /", *[b"a" * 100_000] * 300, b" HTTP/1.1\r\nHost: x\r\n\r\n"],
    ):
        assert status(served.raw(*pieces)) in (0, 400)
    assert HEAD_BYTES_MAX <= 64 * 1024
    ordinary = head("/healthz", *(f"X-{k}: {'a' * 100}" for k in range(50)))
    assert status(served.raw(ordinary)) == 200


def test_a_body_without_a_length_is_bounded_too(served: Served) -> None:
    """Chunked: it is counted as it comes."""
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    first = head("/api/v1/backtest", f"X-API-Key: {served.key}", "Transfer-Encoding: chunked", method="POST")
    assert status(served.raw(first, *[chunk] * 64, b"0\r\n\r\n")) in (0, 413)
    output = head("/api/v1/backtest", f"X-API-Key: {served.key}", "Content-Length: 99999999999", method="POST")
    assert status(served.raw(output, b" " * 300_000)) in (0, 413)
    assert status(served.raw(head("/healthz"))) == 200


def test_requests_are_not_smuggled(served: Served) -> None:
    key = f"X-API-Key: {served.key}"
    inner = head("/api/v1/symbols", key)
    for lines in (
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: -1",),
        ("Content-Length: 5x",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding : chunked",),
        ("X: a\0b",),
        ("X: a\rb",),
        (" folded: x",),
    ):
        answer = served.raw(
            head("/api/v1/plan", key, *lines, method="POST").replace(b"Connection: close\r\n", b"")
            + b"0\r\n\r\n"
            + inner
        )
        assert b"AAAUSDT" not in answer, lines
        assert status(answer) in (0, 400), (lines, answer[:80])


def test_no_header_of_an_answer_can_be_made(served: Served) -> None:
    key = f"X-API-Key: {served.key}"
    evil = "%0d%0aX-Evil:%201"
    for path in (
        f"/api/v1/backtest/{'a' * 32}{evil}",
        f"/api/v1/backtest/{'a' * 32}%0a",
        f"/api/v1/symbols/A{evil}",
        f"/{evil}",
        f"/api/v1/backtest/{'a' * 32}/report?download=true{evil}",
        f"/api/v1/backtests?cursor={evil}",
        f"/vendor/{evil}",
    ):
        answer = served.raw(
            head(
                path,
                key,
                f"Last-Event-ID: {evil}",
                f"If-None-Match: {evil}",
                f"traceparent: {evil}",
                f"Origin: http://x{evil}",
            )
        )
        head_of, _, _ = answer.partition(b"\r\n\r\n")
        assert b"evil" not in head_of.lower(), path
        assert 400 <= status(answer) < 500, path


def test_nothing_of_a_forwarding_header_comes_back(served: Served) -> None:
    lines = (
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: gopher",
        "X-Original-URL: /healthz",
        "X-Rewrite-URL: /healthz",
        "X-HTTP-Method-Override: DELETE",
        "Forwarded: host=evil.example",
        "X-Forwarded-Prefix: /evil.example",
    )
    assert status(served.raw(head("/api/v1/symbols", *lines))) == 401
    answer = served.raw(head("/api/v1/symbols", *lines, f"X-API-Key: {served.key}"))
    assert status(answer) == 200 and b"evil" not in answer


def test_every_answer_keeps_browsers_safe(served: Served, desk: Desk, client: Any, job: str, sweep: str) -> None:
    for path in (
        "/",
        "/app.js",
        "/docs",
        "/openapi.json",
        ABOUT,
        "/nothing",
        "/api/v1/nothing",
        "/healthz",
        "/vendor/preact.js",
    ):
        found = served.gateway.ask("GET", path)[1]
        policy = dict(part.strip().partition(" ")[::2] for part in found["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == policy["base-uri"] == "'none'", path
        assert not {"script-src", "object-src", "script-src-elem", "worker-src"} & policy.keys() or path == "x"
        assert "unsafe" not in found["content-security-policy"].replace("style-src 'self' 'unsafe-inline'", ""), path
        assert (found["x-content-type-options"], found["referrer-policy"]) == ("nosniff", "no-referrer")
        assert "server" not in found
    for one in (job, sweep):  # a report has a script inside: it is of no origin
        policy = client.get(f"/api/v1/backtest/{one}/report").headers["content-security-policy"]
        assert policy.startswith("sandbox allow-scripts") and "allow-same-origin" not in policy
        assert "default-src 'none'" in policy and "connect-src" not in policy


# -- what is reported --------------------------------------------------------------------------------------------------


def test_no_key_is_in_the_log(served: Served) -> None:
    wrong = "cm_wrong-and-secret"
    for given in (served.key, wrong):
        for lines in (
            (f"Authorization: Bearer {given}",),
            (f"X-API-Key: {given}",),
            (f"Authorization: Bearer {given}", "Origin: http://["),
        ):
            answers = [
                served.raw(head(path, *lines)) for path in ("/api/v1/symbols", "/api/v1/backtest/x", "/%00", "/nothing")
            ]
            assert all(given.encode() not in answer for answer in answers)
    served.raw(head("/api/v1/plan", f"X-API-Key: {served.key}", "Content-Length: 9", method="POST") + b"[" * 9)
    served.gateway.ask("GET", "/healthz")
    log = "".join(served.gateway.log)
    assert served.key not in log and wrong not in log
    assert hashlib.sha256(served.key.encode()).hexdigest() not in log
    assert '"key": "alice"' in log


def test_a_databases_password_is_reported_to_nobody() -> None:
    for dsn in (
        "http://alice:s3cret@127.0.0.1:1/x",
        "clickhouse://alice:s3cret@[bad/x",
        "ftp://alice:s3cret@h/x",
        "http://a:s3cret@h:99999/x",
    ):
        with pytest.raises(Exception) as caught:
            ClickHouseStore(dsn)
        error: BaseException | None = caught.value
        assert "s3cret" not in str(error)
        assert isinstance(error, StoreError | ValueError | Exception)


def test_a_line_of_the_log_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = 'x\r\n{"level": "info", "message": "all is well"}\u2028\u0085\x1b[2J\u202e\x9b31m\x00\ud800'
    for formatter in (logs.JsonLines(), logs.TextLines()):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        log = logging.getLogger("candlemill.evil")
        monkeypatch.setattr(log, "propagate", False)  # whoever collects what tests print may not take half characters
        log.addHandler(handler)
        try:
            with logs.about(job=evil):
                log.warning("said %s", evil, extra={"type": evil, "route": evil})
        finally:
            log.removeHandler(handler)
        text = stream.getvalue()
        assert text.endswith("\n") and text[:-1].isprintable(), repr(text)
        if isinstance(formatter, logs.JsonLines):
            assert json.loads(text)["job"] == evil


def test_what_events_say_does_not_break_lines(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    evil = "x\r\nlevel: info\x1b[2J"
    with caplog.at_level(logging.INFO):
        for name in ("id", "partitionkey", "source", "knativeerrordata"):
            desk.post("split", events.REQUESTED, {"symbol": evil, "strategy": evil}, **{name: evil})
        desk.post("split", evil, {})
        desk.post("split", events.REQUESTED, raw=b"{" + evil.encode())
    assert caplog.records
    for record in caplog.records:
        for formatter in (logs.JsonLines(), logs.TextLines()):
            if not record.exc_info:
                assert formatter.format(record).isprintable()
