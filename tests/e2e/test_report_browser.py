"""Reports in a real browser, offline: everything is drawn, nothing is requested, nothing is said on the console."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("plotly", reason="plotly is not installed: pip install candlemill[report]")
pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")

import report_samples as samples
from candlemill.report import write_report, write_sweep_report, write_walk_forward_report

REPORTS: dict[str, tuple[Any, Any]] = {
    "run": (write_report, lambda: samples.trace(60 * 1440, fast=30, slow=200, gap=90)),
    "sweep": (write_sweep_report, lambda: samples.sweep(128, extra=True)),
    "walk": (write_walk_forward_report, lambda: samples.walk_forward(60, 6)),
}
# What each kind of screen is; a phone is also dark here, to open each report no more than twice.
DESKTOP = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True, "is_mobile": True}
READY = "html[data-ready]"
BACKGROUNDS = "[...document.querySelectorAll('.card')].map((e) => getComputedStyle(e).backgroundColor)"
DRAWN = "[...document.querySelectorAll('.plot')].map((e) => !!e.querySelector('.main-svg :is(.trace, .hm)'))"
WIDTHS = "[...document.querySelectorAll('.plot')].map((e) => e.querySelector('svg').clientWidth - e.clientWidth)"
PAPERS = "[...document.querySelectorAll('.main-svg:first-child')].map((e) => e.style.background)"
MONTHS = "document.querySelector('#monthly').data[0].y"  # downwards on a phone
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(24, 30, 37)"


def until(page: Any, condition: str) -> None:
    """Wait for a condition in the page, from outside: its policy lets nobody evaluate text inside."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {condition}")


class Opened:
    """A page that is open, and all that it said and requested."""

    def __init__(self, browser: Any, file: Path, screen: dict[str, Any]) -> None:
        self.context = browser.new_context(offline=True, **screen)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector(READY, timeout=120_000)
        self.page_url = file.as_uri()

    def check(self) -> None:
        page = self.page
        assert self.said == []
        assert self.requested == [self.page_url]
        drawn = page.evaluate(DRAWN)
        assert drawn and all(drawn)
        wide, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= room
        assert max(page.evaluate(WIDTHS)) <= 0

    def colors(self) -> tuple[set[str], set[str]]:
        return set(self.page.evaluate(BACKGROUNDS)), set(self.page.evaluate(PAPERS))


@pytest.fixture(scope="module", params=REPORTS)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    write, make = REPORTS[request.param]
    file = tmp_path_factory.mktemp("reports") / f"{request.param}.html"
    write(make(), file)
    return request.param, file


def test_on_a_desktop_light_dark_and_printed(browser: Any, report: tuple[str, Path], tmp_path: Path) -> None:
    name, file = report
    opened = Opened(browser, file, DESKTOP)
    page = opened.page
    opened.check()
    assert opened.colors() == ({LIGHT}, {LIGHT})
    page.click("#theme")
    until(page, f"{PAPERS}.every((c) => c === '{DARK}')")
    assert opened.colors() == ({DARK}, {DARK})
    if name == "sweep":
        choose_another_heat_map(page)
    else:
        look_closer(page)
    opened.check()
    if name != "sweep":
        for width, rows in ((390, 13), (1280, len(page.evaluate(MONTHS)))):  # drawn again for its width
            page.set_viewport_size({"width": width, "height": 900})
            until(page, f"{MONTHS}.length === {rows} && {WIDTHS}.every((more) => more <= 0)")
    # Printed, even a dark page is dark on white, and no figure is wider than the paper.
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 703, "height": 1000})  # A4 between margins of 12 mm
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(page, f"{PAPERS}.every((c) => c === '{LIGHT}')")
    opened.check()
    assert opened.colors()[0] == {LIGHT}
    opened.context.close()


def choose_another_heat_map(page: Any) -> None:
    page.select_option("#choose-metric", "max_drawdown")
    page.select_option("#choose-over", "mean")
    assert "max. drawdown (bars)" in page.locator(".ranking:visible h2").inner_text()
    until(page, "document.querySelector('#heat').data[0].reversescale")
    assert page.locator("section:has(#heat) h2").inner_text() == "Max. drawdown (bars) by fast and slow"
    assert page.locator("section:has(#heat) .note").inner_text().startswith("Mean over allow_short")


def look_closer(page: Any) -> None:
    """The last day and a listed trade show minutes; a double click leads back."""
    note = page.locator("section:has(#price) .note")
    whole = note.inner_text()
    page.click("text=last hours")
    until(page, "document.querySelector('#price').data[0].type === 'candlestick'")
    assert "361 candles of 1 min" in note.inner_text()
    page.locator('section:has(h2:text("Worst trades")) tbody tr').first.focus()
    page.keyboard.press("Enter")  # as a click does
    assert "of 1 min" in note.inner_text() and "361" not in note.inner_text()
    page.locator("#price .nsewdrag").first.dblclick(position={"x": 99, "y": 99})
    until(page, f"document.querySelector('section:has(#price) .note').textContent === {whole!r}")


def test_on_a_dark_phone(browser: Any, report: tuple[str, Path]) -> None:
    _, file = report
    opened = Opened(browser, file, PHONE)
    opened.check()
    assert opened.colors() == ({DARK}, {DARK})
    small = opened.page.evaluate(
        "[...document.querySelectorAll('main *, svg text')].filter((e) => e.childElementCount === 0 && "
        "e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 9.5).map((e) => e.outerHTML.slice(0, 200))"
    )
    assert small == []
    opened.context.close()
