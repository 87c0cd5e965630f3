"""What the documentation points at is there."""

import re
from pathlib import Path

import pytest
from pages import ROOT, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    lost = [link for link in links if ":" not in link and not _leads_somewhere(page, link)]
    assert not lost


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    folder = ROOT / "docs"
    listed = [*folder.glob("*.md"), *(folder / "howto").glob("*.md"), folder / "decisions" / "README.md"]
    assert len(listed) > 30
    assert not [str(page.relative_to(ROOT)) for page in listed if f"]({page.relative_to(ROOT)})" not in readme]
    decisions = (folder / "decisions" / "README.md").read_text()
    assert all(f"]({page.name})" in decisions for page in (folder / "decisions").glob("0*.md"))


def _leads_somewhere(page: Path, link: str) -> bool:
    name, _, heading = link.partition("#")
    target = (page.parent / name) if name else page
    if not heading or not target.is_file():
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
    return heading in [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]
