"""A skip that nobody has named is a failure."""

import subprocess
import sys
from pathlib import Path

import named_skips
import pytest

TESTS = Path(__file__).parents[1]
MODULE = """
import pytest
@pytest.mark.skipif(True, reason="no moon at /dev/moon")
def test_one(): pass
def test_two(): pytest.skip("it rains")
@pytest.mark.xfail
def test_three(): assert False
def test_four(): pass
"""
WHOLE = "import pytest\npytest.skip('no sun', allow_module_level=True)\n"


def outcome(folder: Path, names: str) -> tuple[int, str]:
    (folder / "skips.txt").write_text(names)
    (folder / "pytest.ini").write_text("[pytest]\n")  # or the settings of a folder above would count
    (folder / "test_some.py").write_text(MODULE)
    (folder / "test_whole.py").write_text(WHOLE)
    command = [
        sys.executable, "-m", "pytest", "-p", "named_skips", "-p", "no:cacheprovider", "-rs", "-q", "--rootdir", folder,
        "--named-skips", "skips.txt", folder,
    ]  # fmt: skip
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env={"PYTHONPATH": str(TESTS / "support")}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_skip_that_is_not_named_fails(tmp_path: Path) -> None:
    status, out = outcome(tmp_path, "no moon at * -- few machines have one\nno sun -- it is night\n")
    assert status == 1
    assert "skipped for a reason that skips.txt does not name: it rains" in out
    assert out.splitlines()[-1].startswith("1 failed, 1 passed, 2 skipped, 1 xfailed")


def test_a_module_that_is_not_named_fails(tmp_path: Path) -> None:
    status, out = outcome(tmp_path, "no moon at * -- few machines have one\nit rains -- in spring\n")
    assert status != 0
    assert "skipped for a reason that skips.txt does not name: no sun" in out


def test_named_skips_pass_and_are_printed(tmp_path: Path) -> None:
    status, out = outcome(tmp_path, "no moon at * -- few\n\n# the weather\nit rains -- in spring\nno sun -- at night\n")
    assert status == 0
    assert "no moon at /dev/moon" in out and "it rains" in out and "no sun" in out
    assert out.splitlines()[-1].startswith("1 passed, 3 skipped, 1 xfailed")


@pytest.mark.parametrize("line", ["it rains", "it rains -- ", " -- because"])
def test_a_name_without_a_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is not PATTERN -- REASON"):
        named_skips.read(line)


def test_the_list_of_this_suite_can_be_read() -> None:
    patterns = named_skips.read((TESTS / "skips.txt").read_text())
    assert patterns and len(set(patterns)) == len(patterns)
