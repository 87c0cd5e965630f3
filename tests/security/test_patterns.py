"""Regular expressions that a text can keep busy for ever. Each of the program's is tried on texts made of its own parts,
in a process whose processor time is bounded: what is quadratic or worse does not come to an end in it."""

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

FUNCTIONS = {"compile", "search", "match", "fullmatch", "sub", "findall", "split", "finditer"}
FLAGS = {"IGNORECASE": re.I, "DOTALL": re.S, "MULTILINE": re.M}
PUMPS = ["a", "0", " ", "-", "_", ".", "'", '"', "`", "/*", "--", "\\\\", "\\\\'", "(", ")", "*/", ";", "\\n", "\\t", "A", "aA", "0a", ":",
         "a-", "0.", " a", "FORMAT ", "FORMAT a ", "FORMAT a;", "port=", "HTTPConnection(host='", "Code: 1. DB::Exception: ",
         "Expected ", " - at `$.a", "=", "+", "%", "{", "[", ",", "'a", "a'b"]
HEADS = ["", "a", "0", "'", "FORMAT ", "FORMAT a", "INSERT ", "--", "/*", "Expected ", "HTTPConnection(host='", "HTTPConnection(host='a', port=1): ",
         "A-1m-", "ENGINE = MergeTree(", "Invalid enum value ", "a" * 64 + " "]
TAILS = ["", "!", "\\n!", "x", "'", "\\0"]
found = 0
for path in sorted(Path(sys.argv[1]).rglob("*.py")):
    if "vendor" in path.parts:
        continue
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS):
            continue
        if ast.unparse(node.func.value) != "re" or not isinstance(node.args[0], ast.Constant):
            continue
        source, flags = node.args[0].value, 0
        for name in ast.unparse(node).split("re."):
            flags |= FLAGS.get(name.split(",")[0].split(")")[0].split(" ")[0], 0)
        pattern = re.compile(source, flags)
        found += 1
        for head in HEADS:
            for pump in PUMPS:
                for tail in TAILS[:2] if head else TAILS:
                    text = head + pump * (4_000 // len(pump)) + tail
                    text = text.encode() if isinstance(source, bytes) else text
                    print(path.name, repr(source)[:60], repr(head), repr(pump), file=sys.stderr) if len(sys.argv) > 2 else None
                    pattern.fullmatch(text)
                    pattern.search(text)
print(found)
"""


def test_no_text_keeps_a_pattern_busy() -> None:
    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))

    done = subprocess.run(
        [sys.executable, "-c", TRIAL, str(CORE)], env=environment(), capture_output=True, text=True, preexec_fn=bounded, check=False
    )
    assert done.returncode == 0, done.stderr[-500:] or "it took all of its time"
    assert int(done.stdout) > 30


def test_statements_to_the_embedded_database_are_read_in_linear_time() -> None:
    """Of the sizes that it takes: before, a megabyte of open quotes or of blanks kept it busy for minutes."""
    trial = """
from candlemill.io.dbengine import _format, _split_insert, _verb
n = 1 << 20
for piece in (b"'", b"/*", b"\\\\'", b"`", b" ", b"a ", b"'\\\\", b"(", b"--", b"FORMAT a ", b"FORMAT a;", b"/*'`"):
    for head in (b"INSERT ", b"SELECT ", b"", b"FORMAT a", b"INSERT 'x"):
        for tail in (b"", b"y", b"\\\\"):
            sql = head + piece * (n // len(piece)) + tail
            _split_insert(sql), _verb(sql), _format(sql, "TSV")
"""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (2 * PROCESSOR_SECONDS, 2 * PROCESSOR_SECONDS))

    done = subprocess.run([sys.executable, "-c", trial.replace("\\\\\\\\", "\\\\")], env=environment(), capture_output=True, text=True, preexec_fn=bounded, check=False)
    assert done.returncode == 0, done.stderr[-500:] or "it took all of its time"
