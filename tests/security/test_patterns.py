"""Regular expressions that a text can keep busy for ever. Each of the program's is tried on texts made of their parts,
in a process whose processor time is bounded: what grows like a power does not come to an end in it."""

import resource
import subprocess
import sys
from pathlib import Path

from conftest import environment

CORE = Path(__file__).parents[2] / "core/candlemill"
PROCESSOR_SECONDS = 60  # of which it needs some two

TRIAL = """
import ast, re, sys
from pathlib import Path

METHODS = "search|match|fullmatch|sub|findall|split|finditer"
FLAGS = {"IGNORECASE": re.I, "DOTALL": re.S, "MULTILINE": re.M}
PUMPS = ["a", "0", " ", "-", "_", ".", "'", '"', "`", "/*", "--", "\\\\", "\\\\'", "(", ")",
         "*/", ";", "\\n", "\\t", "A", "aA", "0a", ":",
         "a-", "0.", " a", "FORMAT ", "FORMAT a ", "FORMAT a;", "port=", "HTTPConnection(host='",
         "Code: 1. DB::Exception: ",
         "Expected ", " - at `$.a", "=", "+", "%", "{", "[", ",", "'a", "a'b"]
HEADS = ["", "a", "0", "'", "FORMAT ", "FORMAT a", "INSERT ", "--", "/*", "Expected ", "HTTPConnection(host='",
         "HTTPConnection(host='a', port=1): ",
         "A-1m-", "ENGINE = MergeTree(", "Invalid enum value ", "a" * 64 + " "]
TAILS = ["", "!"]
SIZE = 400
found = 0
for path in sorted(Path(sys.argv[1]).rglob("*.py")):
    if "vendor" in path.parts:
        continue
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, (ast.Assign, ast.AnnAssign, ast.Call))):
            continue
        call = node if isinstance(node, ast.Call) else node.value
        if not (isinstance(call, ast.Call) and isinstance(call.args[0] if call.args else None, ast.Constant)):
            continue
        module, _, method = ast.unparse(call.func).partition(".")
        known = module == "re" and method in ("compile", *METHODS.split("|"))
        if not known or (method == "compile") == isinstance(node, ast.Call):
            continue
        methods = [method]
        if method == "compile":
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            methods = re.findall(rf"\\b{name}\\.({METHODS})\\(", text) or ["fullmatch"]
        source = call.args[0].value
        flags = sum(value for name, value in FLAGS.items() if f"re.{name}" in ast.unparse(call))
        pattern = re.compile(source, flags)
        found += 1
        for method in set(methods):
            ask = getattr(pattern, method)
            for head in HEADS:
                for pump in PUMPS:
                    for tail in TAILS:
                        tried = head + pump * (SIZE // len(pump)) + tail
                        tried = tried.encode() if isinstance(source, bytes) else tried
                        ask("", tried) if method == "sub" and isinstance(source, str) else ask(tried)
print(found)
"""


def said_by(script: str, seconds: int, *arguments: str) -> str:
    """What a script says that has to end within so much processor time."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=bounded,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:] or "it took all of its time"
    return done.stdout


def test_no_text_keeps_a_pattern_busy() -> None:
    assert int(said_by(TRIAL, PROCESSOR_SECONDS, str(CORE))) > 30


def test_statements_to_the_embedded_database_are_read_in_linear_time() -> None:
    """Of the sizes that it takes: before, open quotes or blanks kept it busy for minutes."""
    trial = """
from candlemill.local.db_sessions import _format, _split_insert, _verb
n = 1 << 16
for piece in (b"'", b"/*", b"\\\\'", b"`", b" ", b"a ", b"'\\\\", b"FORMAT a ", b"FORMAT a;", b"/*'`"):
    for head in (b"INSERT ", b"FORMAT a"):
        for tail in (b"y", b"\\\\"):
            sql = head + piece * (n // len(piece)) + tail
            _split_insert(sql), _verb(sql), _format(sql, "TSV")
"""
    said_by(trial, 2 * PROCESSOR_SECONDS)
