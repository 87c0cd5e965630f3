"""Strategies from files, folders and packages: the same job everywhere, its source part of its address."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from candlemill.backtests.identity import job_id
from candlemill.backtests.resolve import resolve
from candlemill.cli.main import main
from candlemill.config import STRATEGIES_VARIABLE
from candlemill.errors import BadInput, BadPlugin, UnknownName
from candlemill.strategies import REGISTERED, loader, registry

FADE = '''
from typing import Annotated
from msgspec import Meta
from candlemill.strategies import Windowed

class QuickFade(Windowed, frozen=True):
    """Long after a fall."""
    back: Annotated[int, Meta(ge=1, le=500, description="bars to look back")] = 5

    def lookback(self):
        return self.back

    def positions(self, bars):
        out = bars.close < 0
        out[self.back:] = bars.close[self.back:] < bars.close[:-self.back]
        return out
'''
SPAN = (1_704_067_200_000, 1_704_153_600_000)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test in a process that has loaded nothing yet, as far as it can tell."""
    monkeypatch.delenv(STRATEGIES_VARIABLE, raising=False)
    known, path, modules = dict(REGISTERED), list(sys.path), set(sys.modules)
    loader._problems.clear()
    yield
    assert sys.path == path
    REGISTERED.clear()
    REGISTERED.update(known)
    registry._sources.clear()
    loader._references.clear()
    loader._problems.clear()
    for name in set(sys.modules) - modules:
        if not name.startswith("candlemill"):  # functions are loaded once for the whole process
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def address(strategy: str) -> str:
    return job_id(resolve(symbol="X", strategy=strategy, span=SPAN, params={}), "digest")


def test_a_file_is_run_as_any_strategy(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Alone, in worker processes, and from the operator's folder: one job, one result; no path is stored."""
    path = write(tmp_path, "fade.py", FADE)
    call = ["backtest", "--symbol", "AAAUSDT", "--param", "back=30", "--json", "--no-cache", "--slices", "4"]
    found = []
    for more in (["--workers", "1"], ["--workers", "2"]):
        assert main([*call, "--strategy", f"{path}:QuickFade", *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["result_digest"] == found[1]["result_digest"]
    assert found[0]["job_id"] == found[1]["job_id"]
    assert found[0]["strategy_id"] == "quick_fade"
    assert str(tmp_path) not in json.dumps(found[0])
    assert main(["verify", found[0]["job_id"], "--strategy", str(path)]) == 0
    assert "same bits" in capsys.readouterr().out


def test_the_source_is_part_of_the_address_of_its_own_jobs(tmp_path: Path) -> None:
    path = write(tmp_path, "fade.py", FADE)
    built_in = address("sma_cross")
    name = loader.load(str(path))
    first = address(name)
    assert loader.load(f"{path}:QuickFade") == name == "quick_fade"
    assert address(name) == first
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    loader.load(str(write(moved, "fade.py", FADE)))
    assert address(name) == first  # wherever it is
    write(tmp_path, "fade.py", FADE + "# a word\n")
    loader.load(str(path))
    assert address(name) != first
    assert address("sma_cross") == built_in


def test_modules_beside_it_count_too(tmp_path: Path) -> None:
    path = write(tmp_path, "fade.py", "import fade_loops\n" + FADE)
    write(tmp_path, "fade_loops.py", "import fade_depths\n")
    digests = set()
    for k in range(3):
        write(tmp_path, "fade_depths.py", f"K = {k}\n")
        loader.load(str(path))
        assert k == sys.modules["fade_depths"].K
        digests.add(registry.source_digest("quick_fade"))
    assert len(digests) == 3


def test_the_operators_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "fade.py", FADE)
    write(tmp_path, "broken.py", "import nothing_like_it\n")
    write(tmp_path, "test_fade.py", "raise SystemExit\n")
    monkeypatch.setenv(STRATEGIES_VARIABLE, str(tmp_path))
    problems = loader.load_offered()
    assert "quick_fade" in REGISTERED
    assert problems == ["broken.py: ModuleNotFoundError: No module named 'nothing_like_it'"]
    with pytest.raises(UnknownName, match=r"did you mean 'quick_fade'\?.*not loaded: broken.py"):
        loader.load("quick_fads")


def test_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "fadepackage"
    package.mkdir()
    write(package, "__init__.py", "")
    write(package, "fades.py", FADE)
    info = tmp_path / "fadepackage-1.0.dist-info"
    info.mkdir()
    write(info, "METADATA", "Metadata-Version: 2.1\nName: fadepackage\nVersion: 1.0\n")
    write(
        info, "entry_points.txt", "[candlemill.strategies]\nfade = fadepackage.fades:QuickFade\nbad = fadepackage:x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (problem,) = loader.load_offered()
    assert problem.startswith("entry point bad = fadepackage:x: AttributeError")
    assert loader.load("fade") == "fade"
    assert registry.source_digest("fade")
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("text", "wanted", "message"),
    [
        ("x = 1", "", "fade.py has no class derived from candlemill.strategies.Windowed or Stateful"),
        (FADE, ":Missing", "fade.py has no Missing; its strategies: QuickFade"),
        (FADE + FADE.replace("QuickFade", "Other"), "", "fade.py has several strategies, QuickFade, Other: name one"),
        ("class Thing: pass", ":Thing", "is not a class derived from candlemill.strategies.Strategy"),
        (FADE.replace("QuickFade", "SmaCross"), "", "strategy name 'sma_cross' is a built-in strategy's"),
        ("import nothing_like_it", "", "fade.py: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def (", "", "fade.py: SyntaxError"),
        ("raise SystemExit(3)", "", "fade.py: SystemExit: 3"),
        (FADE.replace("int, Meta(ge=1, le=500, ", "list[int], Meta("), "", "'back' is not an int, float, bool or str"),
    ],
)
def test_what_cannot_be_loaded(tmp_path: Path, text: str, wanted: str, message: str) -> None:
    path = write(tmp_path, "fade.py", text)
    with pytest.raises(BadPlugin) as error:
        loader.load(f"{path}{wanted}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_names_clash_in_one_line(tmp_path: Path) -> None:
    loader.load(str(write(tmp_path, "one.py", FADE)))
    with pytest.raises(BadPlugin, match=r"'quick_fade' of .*two.py is taken by .*one.py: rename the class"):
        loader.load(str(write(tmp_path, "two.py", FADE + "# other\n")))


def test_an_old_binary_is_not_run(tmp_path: Path) -> None:
    path = write(tmp_path, "fade.py", "import fade_loops\n" + FADE)
    binary = write(tmp_path, "fade_loops.cpython-311-x86_64-linux-gnu.so", "")
    source = write(tmp_path, "fade_loops.py", "")
    os.utime(binary, (1, 1))
    with pytest.raises(BadPlugin, match=r"fade_loops.*\.so is older than fade_loops.py: compile it again"):
        loader.load(str(path))
    assert source.exists()


@pytest.mark.parametrize("name", ["/tmp/fade.py", "fade.py:QuickFade", "../fade.py"])
def test_an_event_names_no_file(name: str, tmp_path: Path) -> None:
    """What runs for a job that arrives as an event was registered before: a path is an unknown name."""
    write(tmp_path, "fade.py", FADE)
    given: dict[str, Any] = {"symbol": "X", "strategy": name, "span": SPAN, "params": {}}
    with pytest.raises(BadInput, match="unknown strategy"):
        resolve(**given)
