"""Names that would be paths: none leaves the folder that it belongs to, and none is opened that is not named by whoever
runs the program."""

import http.client
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from candlemill.cli import main
from candlemill.errors import BadFile, BadInput
from candlemill.exchanges.binance.funding_files import FundingName
from candlemill.gateway.static import DASHBOARD
from candlemill.ingest.files import find_kline_files, load
from candlemill.pipeline import events
from candlemill.store.connection import folder_of

from security.conftest import REQUEST, Served
from security.desk import Desk

UP = ("..", "%2e%2e", ".%2e", "%252e%252e", "..%c0%af", "..%2f..", "..%5c..", "\\..", "....//", "%uff0e%uff0e")
SECRET = "gateway/api_keys.py"
NAMES = (
    "../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "A/B",
    "A\0B",
    ".",
    "..",
    "~root",
    "file:///etc/passwd",
    "C:\\x",
    "\uff0e\uff0e\uff0fetc",
    "\u202egnp.exe",
    "A%2fB",
    "http://169.254.169.254/latest",
    "a" * 64,
    "*/*",
    "-rf",
    "$(id)",
    "`id`",
)


def test_static_files_stay_in_their_folder(served: Served) -> None:
    """As raw requests: a client would tidy most of these up before sending them."""
    wanted = [f"/{'/'.join([up] * depth)}/{SECRET}" for up in UP for depth in (1, 2, 3)]
    wanted += [f"/vendor/{up}/{up}/{SECRET}" for up in UP]
    wanted += [
        "//etc/passwd",
        "/%2fetc/passwd",
        "/etc/passwd",
        "/index.html/../../" + SECRET,
        "/%00",
        "/app.js%00.html",
    ]
    wanted += ["/..", "/vendor", "/vendor/", "/./vendor/../../" + SECRET, "/index.html%0d%0aX-Evil:%201"]
    for path in wanted:
        connection = http.client.HTTPConnection("127.0.0.1", served.gateway.port, timeout=300)
        connection.putrequest("GET", path, skip_host=False)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        assert answer.status in (400, 403, 404), (path, answer.status)
        assert "root:" not in text and "hashlib" not in text and answer.getheader("X-Evil") is None, path


def test_no_link_in_the_dashboards_folder_leads_out() -> None:
    assert [path for path in DASHBOARD.rglob("*") if path.is_symlink()] == []


def test_symbols_and_ids_are_not_paths(desk: Desk, client: Any, job: str, tmp_path: Path) -> None:
    with desk.unharmed(job):
        for name in NAMES:
            inside = quote(name, safe="")
            for path in (
                ()
                if name in (".", "..")
                else (
                    f"/api/v1/symbols/{inside}",
                    f"/api/v1/symbols/{inside}/candles",
                    f"/api/v1/backtest/{inside}",
                    f"/api/v1/backtest/{inside}/report",
                    f"/api/v1/backtest/{job}/{inside}",
                )
            ):
                answer = client.get(path)
                assert 400 <= answer.status_code < 500, (path, answer.status_code)
                assert "root:" not in answer.text
            for body in (
                {"symbol": name, "strategy": "sma_cross"},
                {"symbol": [name, "AAAUSDT"], "strategy": "sma_cross"},
                {"symbol": "AAAUSDT", "strategy": name},
                {"symbol": "AAAUSDT", "strategy": "sma_cross", "params": {name: 1}},
            ):
                answer = client.post("/api/v1/backtest", json=body)
                assert 400 <= answer.status_code < 500, body
                assert desk.post("split", events.REQUESTED, {**REQUEST, **body})[0] == 422, body


def formats(value: Any) -> list[dict[str, Any]]:
    """All objects of a description that name a format."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    found = [one for part in inside for one in formats(part)]
    return found + ([value] if isinstance(value, dict) and isinstance(value.get("format"), str) else [])


def test_nothing_that_is_requested_is_fetched(desk: Desk, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No field of a request is an address, and one that holds an address is not called."""
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was begun")

    assert "uri" not in {one.get("format") for one in formats(client.get("/openapi.json").json())}
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for name in ("http://127.0.0.1:1/", "//127.0.0.1:1/x", "clickhouse://127.0.0.1:1/default"):
        for body in ({"symbol": name, "strategy": "sma_cross"}, {"symbol": "AAAUSDT", "strategy": name}):
            assert desk.post("split", events.REQUESTED, body)[0] == 422
    status, _ = desk.post(
        "split", events.REQUESTED, REQUEST, source="http://127.0.0.1:1/", dataschema="http://127.0.0.1:1/"
    )
    assert status == 202


def test_files_of_candles_are_taken_by_strict_names(tmp_path: Path) -> None:
    for name in (
        "..-1m-2024-01.zip",
        "A.B-1m-2024-01.zip",
        "a-1m-2024-01.zip",
        "A\u2024B-1m-2024-01.csv",
        "A -1m-2024-01.csv",
        "A\n-1m-2024-01.csv",
        "AUSDT-1m-2024-13.csv",
        "AUSDT-1m-2024-01.zip\n",
        "AUSDT-1m-2024-01.zip.exe",
    ):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadFile, match="no kline file found"):
        find_kline_files([tmp_path])
    for name in ("../A-fundingRate-2024-01.zip", "a-fundingRate-2024-01.csv"):
        with pytest.raises(BadFile, match="not the name of a file of funding rates"):
            FundingName.parse(name)


def test_a_link_or_a_device_for_a_file(tmp_path: Path) -> None:
    """A link is followed, as whoever named the folder may; what it leads to must still be candles, and end."""
    (tmp_path / "AUSDT-1m-2024-01.csv").symlink_to("/etc/passwd")
    (tmp_path / "BUSDT-1m-2024-01.csv").symlink_to("/dev/zero")
    (tmp_path / "CUSDT-1m-2024-01.csv").symlink_to(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    for name in "AB":
        with pytest.raises(BadFile) as caught:
            load(tmp_path / f"{name}USDT-1m-2024-01.csv", 8)
        assert "root:" not in str(caught.value)
    assert [file.path.name[0] for file in find_kline_files([tmp_path]).files] == ["A"]


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "a/b", "a.b", "a\0b", "", "A B", "é", "a\nb", "__init__", "sys"]
)
def test_a_new_strategys_name_is_not_a_path(name: str, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    try:
        status = main.main(["new-strategy", name, "--folder", str(folder)])
    except SystemExit as error:
        status = int(error.code or 0)
    assert status == 2
    assert [path for path in tmp_path.rglob("*") if path != folder] == []
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_of_the_database_is_a_plain_path() -> None:
    for dsn in ("chdb://x", "chdb:", "chdb:///x?y=1", "chdb://host/x?mode=ro"):
        with pytest.raises(BadInput, match="names no folder"):
            folder_of(dsn)
