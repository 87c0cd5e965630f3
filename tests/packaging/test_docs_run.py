"""Every command and snippet of the documentation runs, page by page, on a synthetic year of candles."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from candlemill.checks import runner
from candlemill.checks.runner import check
from candlemill.cli import main
from candlemill.errors import CandlemillError
from candlemill.store import doctor
from candlemill.store.candle_writer import write
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import SCALE
from conftest import days, write_zip
from pages import ROOT, Block, PageRunner, blocks_of, commands_of, pages, programs_of, shape

COLUMNS = ("t", "open", "high", "low", "close", "volume")
LANGUAGES = {"sh", "python", "text", "json", "sql", "yaml", "toml"}
# Their examples are run, and held to more, by test_strategies_docs.py and test_orders_docs.py; those of reports.md need
# the values that its text names.
PYTHON_ELSEWHERE = {"strategies.md", "orders.md", "reports.md"}


def runs(block: Block) -> bool:
    return block.is_run and not (block.language == "python" and block.page.name in PYTHON_ELSEWHERE)


NEEDED = {"export.md": ["duckdb"], "assistants.md": ["mcp", "PIL"]}

ALL = [block for page in pages() for block in blocks_of(page)]
RUN = [page for page in pages() if any(map(runs, blocks_of(page)))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages assume it: three symbols of 2023 in the store, and a month of files."""
    folder = tmp_path_factory.mktemp("documented")
    parts = {
        symbol: {name: days(seed, 0, length, 2023)[name] for name in COLUMNS}
        for symbol, seed, length in (("BTCUSDT", 1, 243), ("ETHUSDT", 2, 151), ("XRPUSDT", 3, 151))
    }
    with ClickHouseStore(f"chdb://{folder / 'db'}") as store:
        for symbol in parts:
            store.add_symbol(symbol, SCALE)
        write(store, parts)
    write_zip(folder / "candles", "BTCUSDT-1m-2023-02", days(1, 31, 28, 2023))
    return folder


def quick_check(*arguments: Any, **options: Any) -> Any:
    """All tests of a check with few trials each, and without a fresh process."""
    return check(*arguments, **{**options, "seconds": 0.2, "elsewhere": None})


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_a_page_runs(page: Path, documented: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "polars", "pyarrow", "plotly", *NEEDED.get(page.name, [])):
        pytest.importorskip(name)
    shutil.copytree(documented, tmp_path, symlinks=True, dirs_exist_ok=True)
    for name in ("benchmarks", "functions", "loadtests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("CANDLEMILL_CLICKHOUSE_DSN", f"chdb://{tmp_path / 'db'}")
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "check", quick_check)
    monkeypatch.setattr(doctor, "orphans", lambda: ())  # what other programs of this machine have left
    page_runner, printed = PageRunner(tmp_path), ""
    try:
        for block in blocks_of(page):
            if runs(block):
                printed = page_runner.run(block)
            elif block.language == "text" and printed:
                lost = [line for line in shape(block.text) if line not in shape(printed) and line != "…"]
                assert not lost, f"{block.place}: not printed:\n{printed}"
    finally:
        page_runner.close()


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.place)
def test_a_block_has_its_language_and_its_commands_parse(block: Block) -> None:
    assert block.language in LANGUAGES, f"{block.place}: ```{block.language}: give one of {sorted(LANGUAGES)}"
    assert not block.note or re.match(r"no-run: \w", block.note), f"{block.place}: say why it does not run"
    if block.language == "sh":
        for command in commands_of(block.text):
            for words in programs_of(command):
                parse(words, block.place)


def test_commands_within_the_text_parse() -> None:
    found = 0
    for page in pages():
        for code in codes_of(page):
            if code.startswith("candlemill ") and "[" not in code and "COMMAND" not in code:
                for words in programs_of(re.sub(r"\bN\b", "1", code)):
                    parse(words, f"{name_of(page)}: {code}", is_named=True)
                    found += 1
    assert found > 20


def test_sources_that_the_text_names_are_there() -> None:
    named = {
        f"{name_of(page)}: {code}": code
        for page in pages()
        for code in codes_of(page)
        if re.fullmatch(r"[\w./-]+/[\w.-]+\.(?:py|sql|js|toml|yaml)", code) and not re.search("NAME|my_fade", code)
    }
    lost = [
        place
        for place, path in named.items()
        if not any(
            (ROOT / start / path).exists() for start in ("", "core/candlemill", "core/candlemill/gateway/dashboard")
        )
    ]
    assert len(named) > 20 and not lost


def codes_of(page: Path) -> list[str]:
    """Code within a page's text, blocks apart."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def parse(words: list[str], place: str, is_named: bool = False) -> None:
    """Ask the program's own parser. A command that is only named leaves out what it needs."""
    if words[:1] in (["-v"], ["--help"]):
        return
    try:
        main.parser().parse_args(words)
    except CandlemillError as error:
        if not (is_named and "are required" in str(error)):
            raise AssertionError(f"{place}: {error}") from None
