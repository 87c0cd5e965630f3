"""Bytes from outside become values by msgspec and the readers of candles, nowhere else; and whatever the bytes are, the
answer is a refusal, never a bug."""

import ast
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from candlemill.errors import BadInput
from candlemill.pipeline import events
from candlemill.pipeline.events import Event
from candlemill.telemetry.instrument import identity
from candlemill.transport import cloudevents
from candlemill.transport.functions import ROUTES

from security.conftest import REQUEST, one_of
from security.desk import Desk

CORE = Path(__file__).parents[2] / "core/candlemill"
FUNCTIONS = CORE.parents[1] / "functions"

# Calls that turn bytes or names into code, or into objects of any kind, and where they may stand.
ALLOWED = {
    ("strategies/loader.py", "exec"),  # a strategy's file, which whoever runs the program has named
    ("strategies/loader.py", "compile"),
    ("strategies/bytecode_digest.py", "pickle.dumps"),  # a digest of a notebook's class; never unpickled
    ("local/worker_pool.py", "pickle.dumps"),  # from a process to its own workers
    ("local/worker_pool.py", "pickle.loads"),
    ("transport/functions.py", "importlib.util.spec_from_file_location"),  # functions/NAME/main.py
    ("transport/start.py", "runpy.run_path"),  # the program that the image names
    ("local/db_sessions.py", "importlib.import_module"),  # one of four names of compression modules
    ("checks/fresh_process.py", "importlib.import_module"),  # the class that this process's parent has in its hands
    ("checks/fresh_process.py", "subprocess.run"),  # this interpreter, a list of arguments, no shell
    ("tables/table.py", "importlib.import_module"),  # pandas, polars, pyarrow
    ("store/embedded.py", "importlib.import_module"),  # pyarrow, for who asks chDB for it
    ("store/embedded.py", "ctypes.CDLL"),  # the C library that this process has loaded already
    ("studies/samplers.py", "import_module"),  # optuna
    ("__init__.py", "import_module"),  # the package's own modules
    ("cluster/kustomize.py", "yaml.safe_load"),
    ("cluster/kustomize.py", "yaml.safe_load_all"),
}
# In the fresh process of `candlemill check`, addresses of libraries that it has loaded; nothing comes from outside.
MOVES_THE_CLOCK = ("checks/moved_clock.py", "checks/numpy_clock.py")
WATCHED = ("pickle", "marshal", "shelve", "dill", "subprocess", "importlib", "yaml", "runpy", "ctypes", "jsonpickle")
BARE = {"eval", "exec", "compile", "__import__", "import_module"}
WHOLE = {
    "np.load",
    "numpy.load",
    "np.loadtxt",
    "np.genfromtxt",
    "np.fromfile",
    "os.system",
    "os.popen",
    "pd.read_pickle",
    "tempfile.mktemp",
    "zipfile.extract",
    "archive.extractall",
    "shutil.unpack_archive",
}
NAMES_ONLY = {"importlib.util.find_spec", "importlib.util.module_from_spec", "importlib.metadata.entry_points"}


def called(tree: ast.AST) -> set[str]:
    return {
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "(" not in ast.unparse(node.func)
    }


def test_nothing_else_turns_bytes_into_code() -> None:
    found = set()
    for path in [*CORE.rglob("*.py"), *FUNCTIONS.rglob("*.py")]:
        if "vendor" in path.parts:
            continue
        name = path.relative_to(CORE).as_posix() if CORE in path.parents else path.name
        for call in called(ast.parse(path.read_text())):
            if call.startswith("ctypes.") and name in MOVES_THE_CLOCK:
                continue
            if call in BARE or call in WHOLE or call.partition(".")[0] in WATCHED:
                found.add((name, call))
    assert {one for one in found if one[1] not in NAMES_ONLY} == ALLOWED


def test_shells_and_unsafe_loaders_are_nowhere() -> None:
    for path in CORE.rglob("*.py"):
        text = path.read_text()
        assert "shell=True" not in text and "allow_pickle=True" not in text and "yaml.load(" not in text, path
        assert "verify=False" not in text and "ssl=False" not in text and "cert_reqs" not in text, path


def deep(depth: int) -> list[bytes]:
    return [
        b"[" * depth + b"]" * depth,
        b'{"a":' * depth + b"1" + b"}" * depth,
        b'{"symbol":"A","strategy":"s","params":' + b"[" * depth + b"]" * depth + b"}",
        b'{"symbol":"A","strategy":"s","params":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}",
        b'{"job_id":"' + b"a" * 32 + b'","x":' + b"[" * depth + b"]" * depth + b"}",
        b"[" * depth,
    ]


BOMBS = [
    *(bomb for depth in (900, 9_000) for bomb in deep(depth)),
    b'{"symbol":"AAAUSDT","strategy":"sma_cross","fee":' + b"9" * 20_000 + b"}",
    b'{"symbol":"AAAUSDT","strategy":"sma_cross","fee":1e999999}',
    b'{"symbol":"AAAUSDT","strategy":"sma_cross","fee":-0.0}',
    *(
        b'{"symbol":"AAAUSDT","strategy":"sma_cross","params":{"fast":%s}}' % text
        for text in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9" * 400, b"-9223372036854775809", b"1.5", b"null")
    ),
    b'{"symbol":"AAAUSDT","strategy":"sma_cross","quantity":' + b"9" * 400 + b"}",
    b'{"symbol":"AAAUSDT","strategy":"sma_cross","quantity":1e-400}',
    b'{"symbol":"AAAUSDT","strategy":"sma_cross","grid":{"fast":"1:1000000:1"}}',
    b'{"symbol":"AAAUSDT","strategy":"sma_cross","grid":{"a=b":"1:2"}}',
    b'{"symbol":"\\ud800","strategy":"sma_cross"}',
    b'{"symbol":"AAAUSDT","symbol":"BBBUSDT","strategy":"\\u0000"}',
    b'{"__proto__":{},"constructor":1,"symbol":"A","strategy":"s"}',
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",  # a pickle
    b"\x93NUMPY\x01\x00v\x00",
    b"!!python/object/apply:os.system ['true']",
    b"\xdd\xff\xff\xff\xff",  # msgpack: a list of four thousand million
]


@pytest.mark.parametrize("kind", events.DATA)
def test_no_bytes_are_a_bug_to_a_function(desk: Desk, kind: str) -> None:
    for bomb in BOMBS:
        status, found = desk.post(ROUTES[kind], kind, raw=bomb)
        assert status in (202, 422, 503), (bomb[:60], found)
        status, found = desk.post("aggregate", kind, raw=bomb, knativeerrorcode="422", partitionkey="x")
        assert status == 202, (bomb[:60], found)


def test_no_bytes_are_a_bug_to_the_gateway(client: Any) -> None:
    for path in ("/api/v1/backtest", "/api/v1/plan"):
        for bomb in BOMBS:
            answer = client.post(path, content=bomb)
            assert 400 <= answer.status_code < 500 or answer.status_code in (200, 202), (bomb[:60], answer.text)
            assert "Traceback" not in answer.text and "/core/" not in answer.text


def test_what_is_compressed_is_not_inflated(client: Any, desk: Desk) -> None:
    """Ten kilobytes that would be ten megabytes; and a sound request, which is not looked for inside either."""
    sound = json.dumps({"symbol": "AAAUSDT", "strategy": "buy_and_hold"}).encode()
    for inside in (b" " * 10_000_000, sound):
        packed = gzip.compress(inside)
        answer = client.post("/api/v1/plan", content=packed, headers={"content-encoding": "gzip"})
        assert answer.status_code == 400
        status, found = desk.post("split", events.REQUESTED, raw=packed)
        assert (status, "not JSON" in found["detail"]) == (422, True)


def test_depth_and_numbers_alone(desk: Desk) -> None:
    """The parts that see bytes before a function does, or without one."""
    for bomb in deep(20_000):
        event = Event(id="1", source="/s", type=events.COMPLETED, data=bomb)
        assert identity(event)["job"] == ""
        with pytest.raises(BadInput):
            events.read(event, events.Completed)
    structured = {"content-type": "application/cloudevents+json"}
    for bomb in BOMBS:
        with pytest.raises(BadInput):
            cloudevents.decode(structured, bomb)


def test_states_and_repairs_are_texts_of_numbers(desk: Desk, output: list[Event], job: str) -> None:
    """A strategy's memory comes back from the store as bytes: it is read by the strategy's own rules."""
    task = json.loads(one_of(output, events.SLICE_REQUESTED).data)
    desk.sent.clear()
    assert (
        desk.post("split", events.REQUESTED, {**{k: REQUEST[k] for k in ("symbol", "range")}, "strategy": "atr_stop"})[
            0
        ]
        == 202
    )
    stateful = json.loads(desk.sent[0].data)
    bad = (
        "",
        "x",
        "|",
        "1,2,3",
        "0,0,0,0,0,0",
        "9,0,0,0,0,0|",
        "0,0,0,-1,0,0|",
        "0,0,0," + "9" * 30 + ",0,0|",
        "0,0,0,0,0," + "9" * 5_000 + "|",
        "nan,0,0,0,0,0|",
        "0,0,0,0,0,0|(1,)",
        "0,0,0,0,0,0|" + "[" * 9_000,
        "0,0,0,0,0,0|\x80\x04N.",
        "0,0,0,0,0,0|" + "9" * 9_000,
    )
    for start in bad:
        forged = {**stateful, "repairs": [{"point": 0, "slice": 0, "count": 1, "start": start}]}
        status, found = desk.post("execute", events.SLICE_REQUESTED, forged)
        assert status in (202, 422), (start[:40], found)
        assert status == 422 or start == "0,0,0,0,0,0", (start[:40], found)
    assert task["spec"]["strategy"] == "sma_cross"


def test_the_interpreters_own_limit_is_in_force() -> None:
    """Numbers of more than 4,300 digits take quadratic time to read."""
    assert 0 < sys.get_int_max_str_digits() <= 4_300
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(b"9" * 5_000, type=int)
