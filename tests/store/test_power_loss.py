"""What a power loss leaves: every write that was not synced is gone; whatever is answered from the rest is right."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from candlemill.config import DSN_VARIABLE
from candlemill.store.clickhouse import ClickHouseStore
from conftest import Cli, environment, said

# Notes the inode of everything that is synced, as (device, inode); data that is written after its last sync does not
# count as synced, so a write takes the note back.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
static void note(char what, int fd) {
    static int log = -1;
    struct stat s; char line[64];
    if (log < 0) log = open(getenv("SYNC_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd == log || fstat(fd, &s) != 0 || !(S_ISREG(s.st_mode) || S_ISDIR(s.st_mode))) return;
    int length = snprintf(line, sizeof line, "%c %lu\n", what, (unsigned long)s.st_ino);
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    real(log, line, length);
}
int fsync(int fd) { int (*real)(int) = dlsym(RTLD_NEXT, "fsync"); int r = real(fd); note('s', fd); return r; }
int fdatasync(int fd) { int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync"); int r = real(fd); note('s', fd); return r; }
ssize_t write(int fd, const void *b, size_t n) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write"); note('w', fd); return real(fd, b, n);
}
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    note('w', fd); return real(fd, b, n, o);
}
ssize_t writev(int fd, const struct iovec *v, int n) {
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    note('w', fd); return real(fd, v, n);
}
"""
WRITER = """
import ctypes, importlib.util, os, signal, sys
from pathlib import Path
(chdb,) = importlib.util.find_spec("chdb").submodule_search_locations
for library in Path(chdb).glob("*.abi3.so"):
    ctypes.CDLL(str(library))  # before chdb binds it to libc itself, past the shim
from candlemill.cli import main
from candlemill.ingest.candles import ingest
from candlemill.store.clickhouse import ClickHouseStore
with ClickHouseStore(sys.argv[1]) as store:
    ingest(store, [Path(sys.argv[2])])
    main.main(sys.argv[3:])  # uses the open engine
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
ROWS = {"AAAUSDT": 8 * 1440 - 90, "BBBUSDT": 3 * 1440}
JOB = ("--symbol", "AAAUSDT", "--strategy", "sma_cross")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("what is synced can be seen on Linux only, with gcc")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"]
    subprocess.run(command, check=True, timeout=300)
    return folder / "shim.so"


def files(folder: Path) -> dict[Path, os.stat_result]:
    return {path: path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def lose_power(folder: Path, before: dict[Path, os.stat_result], log: Path, how: str) -> int:
    """Empty, halve or remove what was written since `before` and not synced; return how many files that were."""
    synced: set[int] = set()
    for what, inode in (line.split() for line in log.read_text().splitlines()):
        (synced.add if what == "s" else synced.discard)(int(inode))
    lost = 0
    for path, now in files(folder).items():
        then = before.get(path)
        if now.st_ino in synced or (
            then is not None and (then.st_ino, then.st_mtime_ns) == (now.st_ino, now.st_mtime_ns)
        ):
            continue
        lost += 1
        if how == "removed":
            path.unlink()
        else:
            os.truncate(path, 0 if how == "emptied" else now.st_size // 2)
    return lost


def power_lost(folder: Path, market: Path, shim: Path, how: str) -> dict[str, Any]:
    """Ingest the market and run a job in a process of its own, and lose power then. Returns the job's result."""
    before, log = files(folder), folder.with_name("syncs")
    command = [sys.executable, "-c", WRITER, f"chdb://{folder}", str(market), "backtest", *JOB, "--json"]
    env = environment(**{DSN_VARIABLE: f"chdb://{folder}"}, LD_PRELOAD=str(shim), SYNC_LOG=str(log))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert lose_power(folder, before, log, how) > 10, "states and results of jobs are not synced"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DSN_VARIABLE, f"chdb://{tmp_path / 'db'}")
    return tmp_path / "db"


@pytest.mark.parametrize("how", ["emptied", "halved", "removed"])
def test_candles_that_were_answered_stay_and_jobs_are_computed_again(
    market: Path, shim: Path, folder: Path, run: Cli, how: str
) -> None:
    with ClickHouseStore(f"chdb://{folder}"):
        pass
    first = power_lost(folder, market, shim, how)
    found = said(run("coverage", "--json"))["symbols"]
    assert {name: sum(month["rows"] for month in months) for name, months in found.items()} == ROWS
    checked = said(run("coverage", "--check", "--json"))["symbols"]
    assert [one["damaged"] for one in checked.values()] == [[], []]
    run("doctor", "--repair")
    again = said(run("backtest", *JOB, "--json"))
    assert (again["job_id"], again["result_digest"]) == (first["job_id"], first["result_digest"])


def test_without_syncs_candles_are_lost_and_nothing_is_computed_from_the_rest(
    market: Path, shim: Path, folder: Path, run: Cli
) -> None:
    with ClickHouseStore(f"chdb://{folder}") as store:
        for table in ("market_data_1m", "coverage_days"):
            store._command(f"ALTER TABLE {table} RESET SETTING fsync_after_insert, fsync_part_directory", {})
    power_lost(folder, market, shim, "emptied")
    assert run("backtest", *JOB)[0] != 0
    assert run("ingest", market)[0] == 0
    assert said(run("backtest", *JOB, "--json"))["bars"] == 8 * 1440 - 90
