"""Who may ask: keys, origins, hosts, and how often."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from candlemill.errors import BadInput
from candlemill.gateway.access import access_of
from candlemill.gateway.api_keys import ApiKeys, make_key
from candlemill.gateway.problems import NoAccess
from conftest import run_cli

from gateway.conftest import Gateway, serving


@pytest.fixture(scope="module")
def guarded(stored_market: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str, Path]]:
    """A gateway with keys, a key, and the file of them."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copytree(stored_market, folder / "db", symlinks=True)
    key, line = make_key("alice")
    keys = folder / "keys"
    keys.write_text(f"# who may ask\n{line}\n")
    origins = "https://desk.example"
    with serving(folder / "db", CANDLEMILL_CORS_ORIGINS=origins, CANDLEMILL_API_KEYS=str(keys)) as found:
        yield found, key, keys


def test_without_a_key_there_is_no_data(guarded: tuple[Gateway, str, Path]):
    gateway, key, _ = guarded
    for path in ("/api/v1/symbols", "/api/v1/about", "/api/v1/backtests"):
        status, headers, found = gateway.ask("GET", path)
        assert (status, headers["www-authenticate"], found["code"]) == (401, "Bearer", "no_access")
    assert gateway.ask("GET", "/api/v1/symbols", Authorization="Bearer cm_guessed")[0] == 401
    assert gateway.ask("GET", "/api/v1/symbols", Authorization=f"Bearer {key}")[0] == 200
    assert gateway.ask("GET", "/api/v1/symbols", X_API_Key=key)[0] == 200
    assert gateway.ask("GET", "/healthz")[0] == 200


def test_a_key_that_is_added_or_taken_away_counts_at_once(guarded: tuple[Gateway, str, Path]):
    gateway, key, file = guarded
    before = file.read_text()
    other, line = make_key("bob")
    try:
        file.write_text(f"{line}\n")
        assert gateway.ask("GET", "/api/v1/about", Authorization=f"Bearer {other}")[0] == 200
        assert gateway.ask("GET", "/api/v1/about", Authorization=f"Bearer {key}")[0] == 401
    finally:
        file.write_text(before)


def test_a_keys_requests_are_limited_and_no_one_elses(stored_market: Path, tmp_path: Path):
    shutil.copytree(stored_market, tmp_path / "db", symlinks=True)
    key, line = make_key("alice")
    (tmp_path / "keys").write_text(line)
    more = {"CANDLEMILL_API_KEYS": str(tmp_path / "keys"), "CANDLEMILL_REQUESTS_PER_MINUTE": "20"}
    with serving(tmp_path / "db", **more) as gateway:
        found = [gateway.ask("GET", "/api/v1/about", Authorization="Bearer cm_mallory")[0] for _ in range(50)]
        assert set(found) == {401, 429}
        status, headers, problem = gateway.ask("GET", "/api/v1/about", Authorization="Bearer cm_mallory")
        assert (status, headers["content-type"], problem["status"]) == (429, "application/problem+json", 429)
        assert int(headers["retry-after"]) <= 60
        assert gateway.ask("GET", "/api/v1/about", Authorization=f"Bearer {key}")[0] == 200
        assert gateway.ask("GET", "/healthz")[0] == 200


def test_pages_of_other_origins_may_not_ask(guarded: tuple[Gateway, str, Path], gateway: Gateway):
    body = {"symbol": "AAAUSDT", "strategy": "buy_and_hold"}
    for origin in ("https://evil.example", "null", f"http://localhost:{gateway.port + 1}"):
        status, headers, found = gateway.ask("POST", "/api/v1/backtest", body, Origin=origin)
        assert (status, found["code"], "access-control-allow-origin" in headers) == (403, "forbidden", False)
    assert gateway.ask("POST", "/api/v1/plan", body, Origin=gateway.url)[0] == 200
    allowed, key, _ = guarded
    status, headers, _ = allowed.ask(
        "GET", "/api/v1/about", Origin="https://desk.example", Authorization=f"Bearer {key}"
    )
    assert (status, headers["access-control-allow-origin"]) == (200, "https://desk.example")


def test_a_name_that_an_attacker_points_here_is_not_served(gateway: Gateway):
    status, _, found = gateway.ask("GET", "/api/v1/symbols", Host=f"rebound.example:{gateway.port}")
    assert (status, found["code"]) == (403, "forbidden")


def test_headers_that_keep_browsers_safe(gateway: Gateway):
    for path in ("/api/v1/about", "/", "/nothing"):
        _, headers, _ = gateway.ask("GET", path)
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_bodies_are_bounded(gateway: Gateway):
    body = json.dumps({"symbol": "AAAUSDT", "strategy": "buy_and_hold", "range": " " * 300_000})
    status, _, found = gateway.ask("POST", "/api/v1/backtest", body)
    assert (status, found["status"]) == (413, 413)
    grid = {"fast": list(range(1, 1500)), "slow": list(range(1500, 3000))}
    request = {"symbol": "AAAUSDT", "strategy": "sma_cross", "grid": grid}
    status, _, found = gateway.ask("POST", "/api/v1/backtest", request)
    assert (status, "the limit is 1,000,000" in found["detail"]) == (422, True)


def test_only_hashes_of_keys_are_kept(tmp_path: Path):
    done = run_cli("key", "alice")
    line, key = done.stdout.strip(), done.stderr.split()[-1]
    assert line == f"alice {hashlib.sha256(key.encode()).hexdigest()}"
    (tmp_path / "keys").write_text(line)
    keys = ApiKeys(tmp_path / "keys")
    assert keys.name_of(key) == "alice"
    with pytest.raises(NoAccess):
        keys.name_of(key + "x")
    for text in ("", "alice secret", "alice " + "0" * 63):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(BadInput):
            ApiKeys(tmp_path / "bad")


@pytest.mark.parametrize("limit", ["0", "00", "-1", "1.5", "many"])
def test_a_limit_that_lets_nobody_in_is_refused(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CANDLEMILL_API_KEYS", str(tmp_path / "keys"))
    (tmp_path / "keys").write_text(make_key("alice")[1])
    monkeypatch.setenv("CANDLEMILL_REQUESTS_PER_MINUTE", limit)
    with pytest.raises(BadInput, match=f"CANDLEMILL_REQUESTS_PER_MINUTE='{limit}' is not a whole number from 1 on"):
        access_of("127.0.0.1")
    monkeypatch.setenv("CANDLEMILL_REQUESTS_PER_MINUTE", "1")
    assert access_of("127.0.0.1").per_minute == 1
