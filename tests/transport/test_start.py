"""Programs as the first process of a container, which gets no signal that it does not handle."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from candlemill.transport.start import ENDED
from conftest import environment

IMPORTS = "import sys, time; print(__name__, *sys.argv[1:], flush=True); time.sleep(60)"
HANDLES = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); " + IMPORTS


@pytest.mark.parametrize(("program", "status"), [(IMPORTS, ENDED), (HANDLES, 7)])
def test_a_program_handles_sigterm_from_its_first_statement_on(tmp_path: Path, program: str, status: int) -> None:
    file = tmp_path / "program.py"
    file.write_text(program)
    command = [sys.executable, "-m", "candlemill.transport.start", str(file), "a", "b"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "__main__ a b\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == status
        finally:
            process.kill()
