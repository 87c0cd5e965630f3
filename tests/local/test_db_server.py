"""`candlemill db` as its users meet it: the real server in a process, the ordinary client over HTTP."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

chdb = pytest.importorskip("chdb")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import candlemill  # noqa: E402
import clickhouse_connect  # noqa: E402
import urllib3  # noqa: E402
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, StreamFailureError  # noqa: E402

CORE = Path(candlemill.__file__).parents[1]
SERVE = """
import os, sys
from pathlib import Path
from candlemill.local.db_server import Limits, serve
limits = Limits(body=8 << 20, result=4 << 20, workers=2, queue=int(os.environ.get("QUEUE", 32)))
try:
    serve(Path(sys.argv[1]), port=0, ready=lambda port: print(port, flush=True), limits=limits)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
TWIN = """
import sys, clickhouse_connect
client = clickhouse_connect.get_client(dsn=sys.argv[1])
for i in range(20):
    client.insert("twins", [[int(sys.argv[2]), i]], column_names=["who", "n"])
print(client.command("SELECT count() FROM twins WHERE who = {who:UInt8}", parameters={"who": int(sys.argv[2])}))
"""
ENDLESS = "SELECT count() FROM numbers(1000000000000000) WHERE sipHash64(number) = 1"


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "CANDLEMILL_DB_PASSWORD"}
    return {**kept, "PYTHONPATH": str(CORE), "no_proxy": "*", **more}


@contextmanager
def server(folder: Path, **more: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A running server and its port; whatever happens, the process is gone afterwards."""
    command = [sys.executable, "-c", SERVE, str(folder)]
    process = subprocess.Popen(command, env=environment(**more), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("served") / "db"
    with server(folder) as (_, port):
        yield folder, port


def dsn(port: int) -> str:
    return f"http://127.0.0.1:{port}/default"


@pytest.fixture
def client(running: tuple[Path, int]) -> Iterator[Any]:
    client = clickhouse_connect.get_client(dsn=dsn(running[1]), autogenerate_session_id=False)
    yield client
    client.close()


def request(port: int, method: str, target: str, **more: Any) -> urllib3.BaseHTTPResponse:
    return urllib3.PoolManager().request(method, f"http://127.0.0.1:{port}{target}", retries=False, **more)


def send_raw(port: int, sql: str) -> socket.socket:
    """A request under way on a socket of its own, to be hung up on."""
    raw = socket.create_connection(("127.0.0.1", port))
    raw.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(sql) + sql.encode())
    return raw


def queries(client: Any) -> int:
    return int(client.command("SELECT count() FROM system.processes")) - 1


def becomes_quiet(client: Any) -> bool:
    return eventually(lambda: not queries(client))


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 300
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_insert_and_query(running: tuple[Path, int], compress: Any) -> None:
    client = clickhouse_connect.get_client(dsn=dsn(running[1]), compress=compress)
    client.command(
        "CREATE OR REPLACE TABLE t (`format` UInt32, s LowCardinality(String)) ENGINE MergeTree ORDER BY tuple()"
    )
    rows = [(i, f"it's\t{i % 3}\\") for i in range(50_000)]
    assert client.insert("t", rows, column_names=["format", "s"]).written_rows == len(rows)
    assert client.query("SELECT format FROM t ORDER BY format LIMIT 2").result_rows == [(0,), (1,)]
    assert client.query("SELECT * FROM t ORDER BY 1").result_rows == rows
    assert client.query("SELECT * FROM t WHERE s = ''").result_rows == []
    assert client.query("SELECT * FROM t LIMIT 0").column_names == ("format", "s")
    client.close()


def test_raw_insert_native_stream_and_raw_query(client: Any) -> None:
    client.command("CREATE TABLE candles (ts UInt64, c Float64) ENGINE MergeTree ORDER BY ts")
    native = client.raw_query("SELECT number AS ts, number / 2 AS c FROM numbers(100000)", fmt="Native")
    assert client.raw_insert("candles", ["ts", "c"], native, fmt="Native").written_rows == 100_000
    blocks = 0
    total = 0
    with client.query_column_block_stream("SELECT ts, c FROM candles ORDER BY ts") as stream:
        for ts, _ in stream:
            blocks += 1
            total += sum(ts)
            assert client.command("SELECT 1") == 1  # an open stream holds up nothing
    assert total == sum(range(100_000))
    assert blocks > 1
    # Random rows do not compress: this body is spooled to disk.
    noise = client.raw_query("SELECT rand64() AS ts, rand() AS c FROM numbers(200000)", fmt="RowBinary")
    client.command("CREATE TABLE noise (ts UInt64, c UInt32) ENGINE MergeTree ORDER BY ts")
    client.raw_insert("noise", None, noise, fmt="RowBinary")
    assert len(client.raw_query("SELECT * FROM noise", fmt="RowBinary")) == len(noise)


def test_bound_parameters(client: Any) -> None:
    awkward = "a'b\\c\n\t{x:String}\x00é"
    values = {"a": [awkward, ""], "n": 3}
    assert client.query("SELECT {a:Array(String)}, {n:UInt8} + 1", values).result_rows == [([awkward, ""], 4)]
    assert client.query("SELECT length({a:Array(UInt32)})", {"a": list(range(20_000))}).result_rows == [(20_000,)]
    client.command("CREATE TABLE bound (s String) ENGINE Memory")
    client.command("INSERT INTO bound VALUES ({s:String})", parameters={"s": awkward})
    client.command("INSERT INTO {t:Identifier} FORMAT JSONEachRow", parameters={"t": "bound"}, data='{"s": "x"}')
    assert sorted(client.query("SELECT s FROM bound").result_columns[0]) == sorted([awkward, "x"])


def test_commands_and_settings(client: Any) -> None:
    assert client.command("SHOW TABLES LIKE 'absent'") == ""
    assert client.command("EXISTS TABLE absent") == 0
    assert client.command("SELECT getSetting('max_threads')", settings={"max_threads": 1}) == 1
    assert client.command("SELECT 'it''s'", settings={"session_timezone": "Europe/Paris"}) == "it\\'s"
    client.command("SET max_threads = 1; USE system")
    assert client.command("SELECT currentDatabase()") == "default"  # nothing outlives its request
    client.command("CREATE DATABASE `odd ``name`")
    other = clickhouse_connect.get_client(dsn=client.uri + "/default", database="odd `name")
    assert other.command("SELECT currentDatabase()") == "odd `name"
    other.close()


def test_errors_are_clickhouses(client: Any, running: tuple[Path, int]) -> None:
    for sql, code in [("SELECT * FROM nope", 60), ("SELECT * FROM nope.t", 81), ("SELECT (1", 62)]:
        with pytest.raises(DatabaseError) as caught:
            client.query(sql)
        assert caught.value.code == code
    late = "SELECT throwIf(number = 2900000), number FROM numbers(3000000)"  # past the held-back head: after the 200
    with pytest.raises(StreamFailureError, match="395"):
        assert client.query(late).result_rows
    with pytest.raises(OperationalError):  # raw bytes have no frame to look into, but must not pass for complete
        client.raw_query(late, fmt="RowBinary")
    with pytest.raises(DatabaseError, match="TOO_MANY_ROWS_OR_BYTES"):
        client.raw_query("SELECT number FROM numbers(1000000)", fmt="JSON")
    answer = request(running[1], "POST", "/", body=b"SELECT * FROM nope")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (404, "60")
    assert answer.data.startswith(b"Code: 60. DB::Exception: ")
    injected = request(running[1], "POST", "/?query=SELECT+1&max_threads=1',readonly='1")
    assert injected.status == 400
    assert request(running[1], "POST", "/?query=SELECT+1&a=1,b=1").status == 404
    assert request(running[1], "POST", "/?query=SELECT+1&a%20b=1").data.startswith(b"Code: 115.")


def test_no_statement_ends_the_process(running: tuple[Path, int]) -> None:
    """ClickHouse would end its whole group of processes, and the shell that started it."""
    for sql in ("SYSTEM SHUTDOWN", "system\n kill", "SELECT 1; SYSTEM /* now */ KILL", "-- x\nSYSTEM # y\n SHUTDOWN"):
        answer = request(running[1], "POST", "/", body=sql.encode())
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "497"), sql
    assert request(running[1], "POST", "/", body=b"SELECT 'SYSTEM KILL'").data == b"SYSTEM KILL\n"
    other = b"SELECT shutdown FROM (SELECT count() > 0 AS shutdown FROM system.tables)"
    assert request(running[1], "POST", "/", body=other).status == 200


def test_plain_http(running: tuple[Path, int]) -> None:
    port = running[1]
    assert request(port, "GET", "/ping").data == b"Ok.\n"
    assert request(port, "GET", "/").data == b"Ok.\n"
    assert request(port, "GET", "/?query=SELECT+1").data == b"1\n"
    for trick in ("", "&readonly=0"):
        assert request(port, "GET", f"/?query=CREATE+DATABASE+linked{trick}").data.startswith(b"Code: 164.")
    answer = request(port, "POST", "/?query=INSERT+INTO+absent+FORMAT+TSV", body=b"1\n")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "60"
    for encoding in ("gzip", "lz4", "zstd"):
        answer = request(port, "POST", "/", body=b"SELECT 1", headers={"Content-Encoding": encoding})
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "271"), encoding


def test_refuses_web_pages_and_large_bodies(running: tuple[Path, int], client: Any) -> None:
    port = running[1]
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert request(port, "POST", "/", body=b"SELECT 1", headers=headers).status == 403
    for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert request(port, "POST", "/", body=b"SELECT 1", headers={"Host": host}).status == 200
    assert request(port, "POST", "/", body=b"x" * (64 << 20)).status == 413
    client.command("CREATE TABLE small (s String) ENGINE Memory")
    bomb = "x" * (9 << 20)  # compresses to nothing
    with pytest.raises(DatabaseError, match="TOO_MANY_BYTES"):
        clickhouse_connect.get_client(dsn=dsn(port), compress="gzip").insert("small", [[bomb]])
    assert client.command("SELECT count() FROM small") == 0


def test_a_client_that_hangs_up_ends_its_read(running: tuple[Path, int], client: Any) -> None:
    for sql in (ENDLESS, "SELECT number FROM system.numbers FORMAT Native"):
        with send_raw(running[1], sql):
            assert eventually(lambda: queries(client) == 1)
        assert becomes_quiet(client)


def test_two_processes_at_once(running: tuple[Path, int], client: Any) -> None:
    client.command("CREATE TABLE twins (who UInt8, n UInt32) ENGINE MergeTree ORDER BY n")
    command = [sys.executable, "-c", TWIN, dsn(running[1])]
    twins = [
        subprocess.Popen([*command, who], env=environment(), stdout=subprocess.PIPE, text=True) for who in ("1", "2")
    ]
    try:
        assert [twin.communicate(timeout=300)[0] for twin in twins] == ["20\n", "20\n"]
    finally:
        for twin in twins:
            twin.kill()
            twin.wait()
    assert client.command("SELECT count() FROM twins") == 40


def test_folder_in_use_is_one_line(running: tuple[Path, int]) -> None:
    command = [sys.executable, "-c", SERVE, str(running[0])]
    second = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert second.stderr.startswith(f"DatabaseLocked: {running[0]} is open in process ")
    assert "CANDLEMILL_CLICKHOUSE_DSN to its address, as in http://127.0.0.1:" in second.stderr


def test_too_many_at_once_are_turned_away(tmp_path: Path) -> None:
    with server(tmp_path / "db", QUEUE="0") as (_, port):
        busy = [send_raw(port, ENDLESS) for _ in range(2)]
        assert eventually(lambda: request(port, "POST", "/", body=b"SELECT 1").status == 503)
        answer = request(port, "POST", "/", body=b"SELECT 1")
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (503, "202")
        assert request(port, "GET", "/ping").status == 200
        for raw in busy:
            raw.close()
        assert eventually(lambda: request(port, "POST", "/", body=b"SELECT 1").data == b"1\n")


def test_password(tmp_path: Path) -> None:
    with server(tmp_path / "db", CANDLEMILL_DB_PASSWORD="geheim") as (_, port):
        assert request(port, "GET", "/ping").status == 200
        for headers in ({}, {"X-ClickHouse-Key": "wrong"}, {"Authorization": "Basic !"}):
            answer = request(port, "POST", "/", body=b"SELECT 1", headers=headers)
            assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
        assert request(port, "POST", "/", body=b"SELECT 1", headers={"X-ClickHouse-Key": "geheim"}).data == b"1\n"
        client = clickhouse_connect.get_client(host="127.0.0.1", port=port, username="default", password="geheim")
        assert client.command("SELECT 1") == 1
        client.close()


def test_open_host_needs_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from candlemill.local.db_server import UnsafeHost, serve

    monkeypatch.delenv("CANDLEMILL_DB_PASSWORD", raising=False)
    with pytest.raises(UnsafeHost, match="CANDLEMILL_DB_PASSWORD"):
        serve(tmp_path / "db", host="0.0.0.0", port=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_closes_the_folder(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "db"
    with server(folder) as (process, port):
        client = clickhouse_connect.get_client(dsn=dsn(port))
        client.command("CREATE TABLE kept (n UInt32) ENGINE MergeTree ORDER BY n")
        client.insert("kept", [[i] for i in range(1000)])
        raw = send_raw(port, ENDLESS)
        assert eventually(lambda: queries(client) == 1)
        client.close()
        process.send_signal(number)
        assert process.wait(timeout=300) == 0  # the query under way would never end by itself
        assert b"X-ClickHouse-Exception-Code: 394".lower() in raw.recv(4096).lower()
        raw.close()
    look = "import chdb, sys; print(chdb.connect(sys.argv[1]).query('SELECT sum(n) FROM kept'))"
    reopened = subprocess.run(
        [sys.executable, "-c", look, str(folder)], capture_output=True, text=True, timeout=300, check=True
    )
    assert reopened.stdout.strip() == str(sum(range(1000)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["db"]  # no spool files
