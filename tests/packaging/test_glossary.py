"""docs/glossary.md: each term has one row, and each row names something that the code defines."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/glossary.md").read_text()
ROWS = re.findall(r"^\| (\*\*.*?\*\*) \| .* \| `([\w/]+\.py)` `(\w+)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("module", "name"), sorted({row[1:] for row in ROWS}))
def test_a_term_leads_to_its_definition(module: str, name: str) -> None:
    source = (ROOT / "core/candlemill" / module).read_text()
    assert re.search(rf"^(?:async )?(?:def|class) {name}\b|^{name}\b.*=", source, re.MULTILINE)


def test_each_term_has_one_row() -> None:
    terms = [term for row in ROWS for term in re.findall(r"\*\*(.+?)\*\*", row[0])]
    assert len(terms) == len(set(terms)) >= 60
    assert len(ROWS) == PAGE.count("\n| **"), "a row without a module"


def test_a_word_not_to_use_is_no_term() -> None:
    terms = {term for row in ROWS for term in re.findall(r"\*\*(.+?)\*\*", row[0])}
    avoided = re.findall(r"^\| ([^|*`]+) \|", PAGE.partition("## Words not to use")[2], re.MULTILINE)
    assert len(avoided) > 10
    assert not terms & {word.strip() for cell in avoided for word in cell.split(",")}


# Old words of the code, and what takes their place. The last row is names of classes that are a common word alone.
OLD_WORDS = {
    "tapes?(?:: | = )(?:EngineTape|CandleColumns|CandleReader)|tapes? of candles": "candles",
    "ledgers?": "store; the entries of an account",
    "campaigns?": "workflow",
    "asked": "requested",
    "told": "reported",
    "hire[ds]?": "start workers",
    "at home": "on one machine",
    "class (?:Ask|Bus|Chosen|Gathered|Ground|Home|Known|Place|Question|Ready)": "a term of docs/glossary.md",
}
FOLDERS = ("benchmarks", "core", "docs", "functions", "loadtests", "release", "schema", "tests")
NAME_OLD_WORDS = ("docs/glossary.md", "tests/packaging/test_glossary.py")


def test_no_old_word_comes_back() -> None:
    files = [
        file for folder in FOLDERS for file in (ROOT / folder).rglob("*.*") if file.suffix in (".py", ".md", ".js")
    ]
    texts = {str(file.relative_to(ROOT)): file.read_text() for file in files if "vendor" not in file.parts}
    assert len(texts) > 300
    old = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(OLD_WORDS)})(?![A-Za-z])", re.IGNORECASE)
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name, text in texts.items()
        if name not in NAME_OLD_WORDS
        for number, line in enumerate(text.splitlines(), 1)
        if old.search(line)
    ]
    assert not found, "\n".join(found)
