"""Nothing that a client can send makes the gateway fail, or answer what its description does not say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.conftest import Gateway

pytest.importorskip("schemathesis")

CASES, SEED = 3, 7  # per operation, beside those that each boundary of the description gives
# A request can be well-formed and mean nothing (fast >= slow, a strategy that is not there): that is no shape's to say.
# And the framework's OPTIONS names one method of a path that has two.
# A body beyond the limit is refused before it is read, whatever is wrong with it.
CONFIG = """[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]
"""
EXCLUDED = "positive_data_acceptance,allow_header_conformance"


def test_whatever_is_sent_is_answered_as_described(gateway: Gateway, tmp_path: Path):
    gateway.finish(symbol="AAAUSDT", strategy="sma_cross", grid={"fast": [5, 10], "slow": [50]})
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{gateway.url}/openapi.json"]
    command += ["--max-examples", str(CASES), "--seed", str(SEED), "--exclude-checks", EXCLUDED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"seed {SEED}\n{done.stdout[-6000:]}\n{done.stderr[-1000:]}"
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None and int(tested[1]) >= 18, done.stdout[-3000:]
