"""Names of hosts, spellings of paths and files of keys that are broken: no way in, and nobody is locked out."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from candlemill.gateway.api_keys import make_key

from gateway.conftest import Gateway, serving


@pytest.fixture(scope="module")
def guarded(stored_market: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str, Path]]:
    """A gateway with keys, a key, and the file of them."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copytree(stored_market, folder / "db", symlinks=True)
    key, line = make_key("alice")
    (folder / "keys").write_text(f"{line}\n")
    with serving(folder / "db", CANDLEMILL_API_KEYS=str(folder / "keys")) as found:
        yield found, key, folder / "keys"


@pytest.mark.parametrize("host", ["x:y", "localhost:y", "x:99999999", "[", "x/healthz?", "x/healthz#", "x\\healthz"])
def test_a_host_that_is_none_is_refused_and_opens_nothing(
    guarded: tuple[Gateway, str, Path], gateway: Gateway, host: str
):
    behind_keys, _, _ = guarded
    for one in (gateway, behind_keys):
        assert one.ask("GET", "/api/v1/symbols", Host=host)[0] in (400, 401, 403)
        assert not any("Traceback" in line for line in one.log)


def test_no_spelling_of_a_path_needs_no_key(guarded: tuple[Gateway, str, Path]):
    gateway, _, _ = guarded
    for path in ("//api/v1/symbols", "/api//v1/symbols", "/./api/v1/symbols", "/%61pi/v1/symbols", "/api/v1/symbols/"):
        assert gateway.ask("GET", path)[0] in (400, 401, 404), path


def test_a_broken_file_of_keys_takes_nobodys_key_away(guarded: tuple[Gateway, str, Path]):
    gateway, key, file = guarded
    before = file.read_bytes()
    other, line = make_key("carol")
    try:
        for broken in (b"alice secret\n", b"", b"\xff\xfe", None):
            if broken is None:
                file.unlink()
            else:
                file.write_bytes(broken)
            assert gateway.ask("GET", "/api/v1/about", Authorization=f"Bearer {key}")[0] == 200
            status, headers, problem = gateway.ask("GET", "/api/v1/about", Authorization=f"Bearer {other}")
            assert (status, problem["code"], "retry-after" in headers) == (503, "keys_unreadable", True)
            assert str(file.parent) not in json.dumps(problem)
        assert any(str(file) in text for text in gateway.log), "the log says which file, and why"
        file.write_bytes(before + f"{line}\n".encode())
        assert gateway.ask("GET", "/api/v1/about", Authorization=f"Bearer {other}")[0] == 200
    finally:
        file.write_bytes(before)
