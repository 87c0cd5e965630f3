"""How a release is made: what it lists, what it lets pass, and that the same gives the same."""

import io
import json
import tarfile

import pytest

from release import audit, build, locks


def test_locks_pin_all_by_hash() -> None:
    found = locks.libraries()
    assert {"numpy", "msgspec", "chdb", "litestar", "plotly", "setuptools"} <= {one.name for one in found}
    assert all(one.hashes and one.version and one.locks for one in found)
    names = {path.stem for path in locks.LOCKS}
    assert names == {"build", "db", "feed", "functions", "gateway"}
    for text in ("numpy>=2\n", "numpy==2.0\n", "https://example.com/x.whl --hash=sha256:" + "0" * 64, "-r other.txt"):
        with pytest.raises(ValueError, match="is not NAME==VERSION with hashes"):
            locks.pinned(text, "x.txt")
    assert locks.pinned("# a\na==1 ; x \\\n  --hash=sha256:" + "0" * 64, "x")[0].version == "1"


def test_what_was_not_audited_does_not_pass() -> None:
    def said(*dependencies: dict[str, object]) -> list[str]:
        return audit.problems("x.txt", json.dumps({"dependencies": dependencies}), "")

    sound = {"name": "a", "version": "1", "vulns": []}
    assert said(sound) == []
    assert "not audited: not found" in said(sound, {"name": "b", "skip_reason": "not found"})[0]
    hole = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    assert said(hole) == ["x.txt: c 2: PYSEC-1, mended in 3"]
    assert "not audited" in said()[0]
    for answer in ("", "[]", "{}", "null", '{"dependencies": null}'):
        assert (
            "not audited: last words" in audit.problems("x", answer, "first\nlast words")[0] or answer[-5:] == "null}"
        )
    assert "not audited" in audit.problems("x", "", "")[0]


def test_an_advisory_service_that_is_away_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "OSV", "http://127.0.0.1:1/")
    monkeypatch.setenv("no_proxy", "*")
    (line,) = audit.of_front_end(locks.front_end())
    assert line.startswith("front-end: not audited: ")
    monkeypatch.setattr(audit, "LOCKS", [])
    with pytest.raises(SystemExit, match=r"could not be audited.*AUDIT=skip"):
        audit.main()


def archive(at: float, owner: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as out:
        for name, mode in (("b.py", 0o600), ("a.py", 0o777)) if at > 1e9 else (("a.py", 0o755), ("b.py", 0o644)):
            member = tarfile.TarInfo(name)
            member.mtime, member.uname, member.mode, member.size = int(at), owner, mode, 2
            out.addfile(member, io.BytesIO(b"x\n"))
    return packed.getvalue()


def test_a_source_archive_says_nothing_of_who_made_it() -> None:
    first, second = (
        build.repacked(archive(5, "alice"), 1_700_000_000),
        build.repacked(archive(1_800_000_000, "bob"), 1_700_000_000),
    )
    assert first == second and b"alice" not in first
    with tarfile.open(fileobj=io.BytesIO(first)) as found:
        assert [(one.name, one.mtime, one.uid, one.mode) for one in found] == [
            ("a.py", 1_700_000_000, 0, 0o755), ("b.py", 1_700_000_000, 0, 0o644)]  # fmt: skip


def test_the_bill_of_materials() -> None:
    pytest.importorskip("cyclonedx", reason="cyclonedx is not installed: pip install candlemill[release]")
    from release import sbom

    licences = {sbom.normal(one.name): "MIT" for one in locks.libraries() if one.name != "colorama"}
    text = sbom.text_of(sbom.bom("0" * 40, 1_700_000_000, licences))  # raises for what its schema does not know
    assert text == sbom.text_of(sbom.bom("0" * 40, 1_700_000_000, licences))
    found = json.loads(text)
    output = {one["purl"]: one for one in found["components"]}
    assert len(output) == len(locks.libraries()) + len(locks.front_end())
    assert {one.partition("@")[0] for one in output if "npm" in one} == {
        f"pkg:npm/{one.name}" for one in locks.front_end()
    }
    assert found["metadata"]["component"]["name"] == "candlemill"
    assert "colorama 0.4.6: not installed here" in sbom.licence_list(sbom.bom("0" * 40, 0, licences))
    assert all(one.version in (locks.FRONT_END / "update.py").read_text() for one in locks.front_end())
