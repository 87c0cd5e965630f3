"""A release from a clean checkout: the source archive and the wheel, built twice in two places, and the same bits.

python -m release.build FOLDER      run by `make release`, with what images/build.txt pins
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from release.locks import ROOT


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout


def build(epoch: int) -> dict[str, bytes]:
    """Both files, by name, from what the last commit has; in a folder that nothing has been in."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", "HEAD"))) as archive:
            archive.extractall(source, filter="data")
        env = {name: value for name, value in os.environ.items() if not name.startswith("CANDLEMILL")}
        env |= {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        # The wheel is made of the source archive, unpacked anew: neither debug information nor a message may say where.
        env["CFLAGS"] = f"-g0 -ffile-prefix-map={folder}=."
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
        _run([*command, "--sdist", str(source)], env)
        (packed,) = out.glob("*.tar.gz")
        packed.write_bytes(repacked(packed.read_bytes(), epoch))
        unpacked = Path(folder) / "unpacked"
        with tarfile.open(packed) as archive:
            archive.extractall(unpacked, filter="data")
        (inside,) = unpacked.iterdir()
        _run([*command, "--wheel", str(inside)], env)
        return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def _run(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.exit(f"release: the build failed:\n{done.stdout.decode(errors='replace')[-4_000:]}")


def repacked(data: bytes, epoch: int) -> bytes:
    """A source archive with nobody's names and times in it, its members in order."""
    plain = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.pax_headers = {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=epoch, filename="") as out:
        out.write(plain.getvalue())
    return packed.getvalue()


def main(folder: Path) -> None:
    if git("status", "--porcelain"):
        sys.exit("release: the checkout has changes: commit them, a release is what a commit says")
    epoch = int(git("log", "-1", "--format=%ct"))
    first, second = build(epoch), build(epoch)
    if first != second:
        different = ", ".join(name for name in first if first[name] != second.get(name)) or "the names"
        sys.exit(f"release: built twice from one commit, these differ: {different}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in first.items():
        (folder / name).write_bytes(data)
        print(f"{hashlib.sha256(data).hexdigest()}  {name}  twice the same")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
