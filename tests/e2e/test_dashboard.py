"""The dashboard in a real browser, against a real `candlemill serve`: from the form to the comparison."""

import json
import os
import random
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("chdb", reason="chdb is not installed: pip install candlemill[embedded]")
pytest.importorskip("litestar", reason="litestar is not installed: pip install candlemill[gateway]")
pytest.importorskip("plotly", reason="plotly is not installed: pip install candlemill[report]")
pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")

from candlemill import formatting
from candlemill.backtests import metric_table
from candlemill.cli.main import parser
from candlemill.ingest.candles import ingest
from candlemill.report import theme
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import parse_rate
from conftest import days, write_zip
from gateway.conftest import Gateway, serving
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "core/candlemill/gateway/dashboard"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True, "is_mobile": True,
}  # fmt: skip
DAYS = 40
GAP_MINUTES = 90
expect.set_options(timeout=120_000)  # machines that run tests are busy
DRAWN = ".chart .canvas[data-drawn]:has(canvas)"
RUN_CHARTS = 6  # equity, price, rolling Sharpe ratio, histogram, worst and best moments


# -- the files ----------------------------------------------------------------------------------------------------


def own_files() -> list[Path]:
    return sorted(p for p in FOLDER.rglob("*") if p.is_file() and p.parent.name not in ("vendor", "__pycache__"))


def test_libraries_are_the_pinned_ones_with_their_licences() -> None:
    scope: dict[str, Any] = {"__name__": "update", "__file__": str(FOLDER / "vendor/update.py")}
    exec(compile((FOLDER / "vendor/update.py").read_text(), "update.py", "exec"), scope)
    assert scope["wrong"]() == []
    for package in scope["PINS"]:
        assert any("LICENSE" in name for name in package.files), package.name


def test_nothing_leaves_the_origin_and_no_text_becomes_markup() -> None:
    for path in own_files():
        text = path.read_text()
        assert "innerHTML" not in text and "eval(" not in text, path
        outside = [url for url in re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}", text) if "w3.org" not in url]
        assert outside == [], path
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*src=)|\son\w+=", text), path


def test_all_files_are_in_the_wheel() -> None:
    output = (ROOT / "pyproject.toml").read_text()
    patterns = re.findall(r'"gateway/(dashboard/[^"]+)"', output)
    for path in [*own_files(), *FOLDER.glob("vendor/*.js"), *FOLDER.glob("vendor/*.txt")]:
        name = path.relative_to(FOLDER.parent).as_posix()
        assert any(fnmatch(name, p) and name.count("/") == p.count("/") for p in patterns), name


def colors(selector: str) -> dict[str, str]:
    block = re.search(re.escape(selector) + r" \{([^}]*)\}", (FOLDER / "app.css").read_text())
    assert block
    return dict(re.findall(r"--([a-z]+): ([^;]+);", block[1]))


@pytest.mark.parametrize("selector, wanted", [(":root", theme.LIGHT), (":root[data-theme=dark]", theme.DARK)])
def test_colours_are_the_reports_and_can_be_read(selector: str, wanted: dict[str, str]) -> None:
    found = colors(selector)
    assert {name: found[name] for name in wanted} == wanted
    if selector != ":root":
        assert colors(":root:not([data-theme=light])") == found

    def light(color: str) -> float:
        parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    plain = [(text, ground) for text in ("ink", "muted", "line", "up", "down") for ground in ("paper", "back")]
    for text, ground in [*plain, ("ink", "rise"), ("ink", "fall")]:  # the last two are cells of heat maps
        high, low = sorted((light(found[text]), light(found[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


# -- the browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """AAAUSDT: 40 days of 2024 over a month's end, with a gap. BBBUSDT: 10 of them."""
    folder = tmp_path_factory.mktemp("dashboard")
    january, february = days(1, 10, 21), days(1, 31, DAYS - 21)
    keep = [k for k in range(len(january["t"])) if not 20_000 <= k < 20_000 + GAP_MINUTES]
    write_zip(folder / "zips", "AAAUSDT-1m-2024-01", {name: column[keep] for name, column in january.items()})
    write_zip(folder / "zips", "AAAUSDT-1m-2024-02", february)
    write_zip(folder / "zips", "BBBUSDT-1m-2024-01", days(2, 20, 10))
    with ClickHouseStore(f"chdb://{folder}/db") as store:
        ingest(store, [folder / "zips"])
    with serving(folder / "db") as found:
        yield found


class Opened:
    """A page that is open, and all that it said and requested."""

    def __init__(self, browser: Any, url: str, screen: dict[str, Any]) -> None:
        self.url = url
        self.context = browser.new_context(**screen)
        self.context.set_default_timeout(120_000)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))

    def go(self, address: str) -> Any:
        self.page.goto(f"{self.url}/{address}")
        expect(self.page.locator("h1")).to_be_visible()
        return self.page

    def check(self) -> None:
        """No request elsewhere, nothing wider than the page, names for all controls, and no word on the console but
        the browser's own on plans that the server refused."""
        assert [text for text in self.said if "the server responded with a status of 4" not in text] == []
        assert [url for url in self.requested if not url.startswith((self.url, "blob:", "data:"))] == []
        wide, room = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= room, self.page.url
        assert self.page.evaluate(NAMELESS) == [], self.page.url
        assert self.page.locator("h1").count() == 1

    def close(self) -> None:
        self.context.close()


# Controls without a name, pictures without a text, focusable boxes without a role: by the browser's own computation.
NAMELESS = """[...document.querySelectorAll('button, a, input, select, [role=slider], [tabindex="0"], canvas, img')]
  .filter((e) => e.checkVisibility())
  .filter((e) => {
    if (e.matches('img')) return !e.hasAttribute('alt');
    if (e.matches('canvas')) return !e.closest('[aria-label]');
    if (e.matches('input, select')) return !(e.labels?.length || e.ariaLabel);
    return !(e.ariaLabel || e.textContent.trim());
  }).map((e) => e.outerHTML.slice(0, 160))"""


@pytest.fixture
def desktop(browser: Any, gateway: Gateway) -> Iterator[Opened]:
    opened = Opened(browser, gateway.url, DESKTOP)
    yield opened
    opened.close()


def planned(page: Any, sentence: str) -> None:
    """The plan says so, and there is nothing wrong with it."""
    expect(page.locator(".plan .what")).to_have_text(sentence)
    expect(page.locator(".plan .stale")).to_have_count(0)
    expect(page.locator(".problem")).to_have_count(0)


def started(page: Any) -> str:
    """The job that the form starts, when its result is there."""
    page.locator("[data-start]").click()
    expect(page.locator(".badge.done")).to_be_visible()
    return str(page.url.split("#/job/")[1].split("?")[0])


def test_from_the_form_to_the_result_and_closer(desktop: Opened, gateway: Gateway) -> None:
    page = desktop.go("#/new")
    planned(page, "Backtest of one parameter set")
    page.get_by_label("Name").select_option("sma_cross")
    page.get_by_role("textbox", name="fast").fill("500")
    wrong = page.locator(".problem")
    expect(wrong).to_contain_text("must be less than slow=50")
    expect(page.locator("[data-start]")).to_be_disabled()
    page.get_by_label("Fee of each fill").fill("x")
    expect(page.get_by_label("Fee of each fill")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Fee of each fill").fill("100")
    page.get_by_role("textbox", name="fast").fill("20")
    page.get_by_role("textbox", name="slow").fill("300")
    planned(page, "Backtest of one parameter set")
    expect(page).to_have_url(re.compile(r"p\.fast=20.*p\.slow=300|p\.slow=300.*p\.fast=20"))
    job_id = started(page)
    result = gateway.get(f"/api/v1/backtest/{job_id}")["result"]
    assert result["params"]["fast"] == 20 and result["spec"]["fee"] == 100
    headline = page.locator(".keys")
    expect(headline).to_contain_text(formatting.money(result["total_pnl"]))
    expect(headline).to_contain_text(formatting.ratio(result["sharpe_ratio"]))
    expect(page.locator(DRAWN)).to_have_count(RUN_CHARTS)
    expect(page.locator("#setup")).to_contain_text(result["result_digest"])
    expect(page.locator(".months td").first).not_to_be_empty()
    # Closer, down to the minute, by a button, by the handles and by a trade; the address shows the same again.
    page.get_by_role("button", name="6 hours").click()
    expect(page.locator("[data-price]")).to_contain_text("360 candles of 1 min")
    page.get_by_role("button", name="closer").click()
    expect(page.locator("[data-price]")).to_contain_text("180 candles of 1 min")
    expect(page).to_have_url(re.compile(r"from=\d+&to=\d+"))
    page.reload()
    expect(page.locator("[data-price]")).to_contain_text("180 candles of 1 min")
    page.get_by_role("button", name="all", exact=True).click()
    page.locator('section[aria-label="Trades"] tbody tr').nth(3).click()
    expect(page.locator('section[aria-label="Trades of the span"]')).to_be_visible()
    drag_over(page)
    with page.expect_download() as got:
        page.get_by_role("button", name="JSON").click()
    saved = json.loads(got.value.path().read_text())
    assert saved["result"] == result
    expect(page.get_by_role("link", name="report")).to_have_attribute("href", f"/api/v1/backtest/{job_id}/report")
    desktop.check()


def drag_over(page: Any) -> None:
    """A span dragged in the price figure is looked at."""
    before = page.locator("[data-span]").inner_text()
    box = page.locator('section[aria-label="Price and trades"] .canvas')
    box.scroll_into_view_if_needed()
    found = box.bounding_box()
    page.mouse.move(found["x"] + 400, found["y"] + 150)
    page.mouse.down()
    page.mouse.move(found["x"] + 700, found["y"] + 160, steps=4)
    page.mouse.up()
    expect(page.locator("[data-span]")).not_to_have_text(before)
    box.dblclick(position={"x": 500, "y": 150})
    expect(page.locator("[data-span]")).to_have_text("2024-01-11 00:00 to 2024-02-19 23:59")


def test_a_sweep_its_heat_map_one_of_its_sets_and_the_comparison(desktop: Opened, gateway: Gateway) -> None:
    page = desktop.go("#/new?symbol=AAAUSDT&strategy=sma_cross&g.fast=20:60:20&g.slow=200,400,800&fee=100")
    planned(page, "Sweep of 9 parameter sets")
    sweep_id = started(page)
    expect(page.locator('section[aria-label="Heat map"]')).to_be_visible()
    expect(page.locator(".guards")).to_contain_text("Overfitting (PBO)")
    expect(page.locator(".guards")).to_contain_text("Deflated Sharpe")
    table = page.locator('section[aria-label="Sets"] tbody tr')
    expect(table).to_have_count(9)
    page.get_by_role("button", name="max. drawdown (bars)").click()
    expect(page).to_have_url(re.compile("sort=max_drawdown"))
    best = gateway.get(f"/api/v1/backtest/{sweep_id}/results?sort=max_drawdown&limit=1")["items"][0]
    expect(table.first).to_contain_text(formatting.money(best["max_drawdown"]))
    # The cell in the middle of the map is the set in the middle of the grid.
    expect(page.locator(DRAWN)).to_have_count(1)
    canvas = page.locator("[data-heat] .canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] / 2, "y": (box["height"] - 36) / 2})
    expect(page.locator("h1")).to_have_text(re.compile(r"fast=40.*slow=400"))
    expect(page.locator(DRAWN)).to_have_count(RUN_CHARTS)
    one = page.url.split("#/job/")[1]
    other = gateway.finish(symbol="AAAUSDT", strategy="donchian", range="2024-01")["job_id"]
    page = desktop.go(f"#/compare/{one},{other}")
    expect(page.locator(DRAWN)).to_have_count(1)
    expect(page.locator("tr.differs", has_text="strategy")).to_contain_text("donchian")
    expect(page.locator("tbody tr:not(.differs)", has_text="Sharpe ratio")).to_have_count(1)
    sweeps = gateway.get("/api/v1/backtests?kind=sweep")["items"]  # other tests start some too
    page = desktop.go("#/jobs?kind=sweep")
    expect(page.locator("tbody tr")).to_have_count(len(sweeps))
    expect(page.locator("tbody tr", has_text="donchian")).to_have_count(0)
    page.get_by_label("kind").select_option("")
    expect(page.locator("tbody tr", has_text="donchian")).to_have_count(1)
    page.locator("tbody input[type=checkbox]").first.check()
    expect(page.locator(".picked")).to_contain_text("1 chosen")
    desktop.check()


def test_what_is_stored(desktop: Opened) -> None:
    page = desktop.go("#/data/AAAUSDT")
    expect(page.locator(DRAWN)).to_have_count(1)
    expect(page.locator(".facts").first).to_contain_text(f"{DAYS * 1440 - GAP_MINUTES:,}")
    expect(page.locator('section[aria-label="Gaps"] tbody tr')).to_have_count(1)
    expect(page.locator('section[aria-label="Gaps"] tbody tr')).to_contain_text(str(GAP_MINUTES))
    page.locator("[data-calendar]").focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator('section[aria-label="Days"] .note')).to_have_text("2024-02-18: 1,440 candles, none missing")
    page.get_by_role("link", name="backtest it").click()
    expect(page.locator(".chip")).to_have_text(re.compile("AAAUSDT"))
    planned(page, "Backtest of one parameter set")
    desktop.check()


def test_with_the_keyboard_only(desktop: Opened) -> None:
    page = desktop.go("#/new?symbol=AAAUSDT&strategy=sma_cross&fee=100")
    planned(page, "Backtest of one parameter set")
    press = page.keyboard.press
    press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    press("Enter")
    reach(page, "vary fast")
    press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("20,40")  # takes the place of the grid that was proposed: Tab selects all of a field
    reach(page, "vary slow")
    press("Space")
    press("Shift+Tab")
    page.keyboard.type("200:600:200")
    planned(page, "Sweep of 6 parameter sets")
    reach(page, "Start the sweep")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press("Enter")
    expect(page.locator(".badge.done")).to_be_visible()
    expect(page.locator("h1")).to_be_focused()
    expect(page.locator(DRAWN)).to_have_count(1)
    for _ in range(40):
        press("Tab")
        if page.evaluate("document.activeElement.hasAttribute('data-heat')"):
            break
    press("ArrowLeft")
    press("ArrowDown")
    expect(page.locator("section:has([data-heat]) [aria-live]")).to_contain_text("Enter opens its run")
    press("Enter")
    expect(page.locator("h1")).to_have_text(re.compile(r"sma_cross\(.*fast=\d+"))
    expect(page.locator(DRAWN)).to_have_count(RUN_CHARTS)
    reach(page, "start of the span")
    before = page.locator("[data-span]").inner_text()
    press("PageUp")
    expect(page.locator("[data-span]")).not_to_have_text(before)
    desktop.check()


def reach(page: Any, name: str) -> None:
    """Go on with Tab to the control of that name."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("(document.activeElement.ariaLabel || document.activeElement.textContent).trim()") == name:
            return
    raise AssertionError(f"Tab never reached {name!r}")


def test_progress_is_followed_through_a_broken_stream(desktop: Opened, gateway: Gateway) -> None:
    job = gateway.finish(symbol="BBBUSDT", strategy="sma_cross")
    running = {**job, "state": "running", "result": None, "progress": {"state": "running", "done": 1, "total": 4}}
    line = 'id: {}\nevent: {}\ndata: {{"state": "{}", "done": {}, "total": 4, "repairs": 0, "fraction": {}}}\n\n'
    streams = [line.format("a-1", "progress", "running", 2, 0.5), line.format("a-2", "done", "done", 4, 1.0)]
    output: list[str] = []
    rows = iter([running])

    def row(route: Any) -> None:
        found = next(rows, None)
        route.fallback() if found is None else route.fulfill(json=found)

    def stream(route: Any) -> None:
        output.append(route.request.headers.get("last-event-id", ""))
        if len(output) == 2:
            expect(desktop.page.locator(".big")).to_have_text("50%")
            expect(desktop.page.locator(".steps .now")).to_have_text("running, 2 of 4 tasks")
            moving = re.compile(r"width: ?(5\d|6\d|7[0-3])\.\d+%")  # towards the end of the next task, not up to it
            expect(desktop.page.locator(".progress i")).to_have_attribute("style", moving)
        route.fulfill(body=streams[len(output) - 1], content_type="text/event-stream")

    desktop.page.route(f"**/backtest/{job['job_id']}", row)
    desktop.page.route("**/events", stream)
    page = desktop.go(f"#/job/{job['job_id']}")
    expect(page.locator(".badge.done")).to_be_visible()
    expect(page.locator(".keys")).to_be_visible()
    assert output == ["", "a-1"]
    desktop.check()


def test_a_key_is_requested_once(desktop: Opened) -> None:
    keys: list[str | None] = []

    def guard(route: Any) -> None:
        keys.append(route.request.headers.get("authorization"))
        if keys[-1] == "Bearer right":
            route.fallback()
        else:
            route.fulfill(status=401, json={"detail": "a key is needed"}, content_type="application/problem+json")

    desktop.page.route("**/api/**", guard)
    page = desktop.go("#/new")
    for key in ("wrong", "right"):
        page.get_by_label("key", exact=True).fill(key)
        page.keyboard.press("Enter")
    planned(page, "Backtest of one parameter set")
    expect(page.locator("dialog")).to_have_count(0)
    page.reload()
    planned(page, "Backtest of one parameter set")
    assert None in keys and "Bearer wrong" in keys
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_on_a_dark_phone(browser: Any, gateway: Gateway, tmp_path: Path) -> None:
    opened = Opened(browser, gateway.url, PHONE)
    body = {"symbol": "AAAUSDT", "strategy": "sma_cross", "fee": 100}
    run = gateway.finish(**body, params={"fast": 20, "slow": 300})["job_id"]
    sweep = gateway.finish(**body, grid={"fast": [20, 40, 60], "slow": [200, 400, 800]})["job_id"]
    views = {
        "#/new?symbol=AAAUSDT,BBBUSDT&strategy=keltner&g.width=100:300:50": 0, "#/jobs": 0, f"#/job/{run}": RUN_CHARTS,
        f"#/job/{sweep}": 1, f"#/compare/{run}": 1, "#/data/AAAUSDT": 1,
    }  # fmt: skip
    for address, charts in views.items():
        page = opened.go(address)
        expect(page.locator(DRAWN)).to_have_count(charts)
        expect(page.locator(".busy:not(.badge)")).to_have_count(0)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"
        opened.check()
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{folder}/{len(opened.requested)}.png", full_page=True)
    opened.go("#/jobs")
    page.get_by_label("light colours").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(243, 245, 248)"
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(243, 245, 248)"
    opened.close()


def test_the_form_needs_few_requests(desktop: Opened) -> None:
    """How long they take is the machine's affair; a page that asks for little is there at once."""
    watch = """new MutationObserver(() => {
      if (!window.needed && document.querySelector('[data-ready=form]'))
        window.needed = performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname);
    }).observe(document, { childList: true, subtree: true, attributes: true });"""
    desktop.page.add_init_script(watch)
    desktop.page.goto("about:blank")
    page = desktop.go("#/new?symbol=AAAUSDT&strategy=sma_cross")
    expect(page.locator("[data-ready=form]")).to_be_visible()
    needed = page.evaluate("window.needed")
    assert len([path for path in needed if path.startswith("/api/")]) <= 4, needed
    assert len(needed) <= 30, needed


# -- the same numbers as everywhere -------------------------------------------------------------------------------


def test_figures_read_as_in_reports(desktop: Opened, gateway: Gateway) -> None:
    chance = random.Random(1)
    values = [0, 1, -1, 5 * 10**7, 10**8 - 1, -(10**13), 2**53 + 1, -(2**62)]
    values += [chance.randrange(-(10**n), 10**n) for n in range(1, 19) for _ in range(10)]
    page = desktop.go("#/data")
    found = page.evaluate(
        """async (texts) => {
          const f = await import("/format.js"), { parseJson } = await import("/api.js");
          return parseJson(`{"exact": [${texts}], "no": "1234567890123456789", "x": 0.12345678901234567}`)
            .exact.map((v) => [f.money(v), f.ratio(v), f.percent(v), f.rate(v), f.decimal(v, 8)]);
        }""",
        [str(value) for value in values],
    )
    written = (formatting.money, formatting.ratio, formatting.percent, formatting.rate)
    wanted = [[*(write(v) for write in written), formatting.decimal(v, 8)] for v in values]
    assert found == wanted
    result = gateway.finish(symbol="AAAUSDT", strategy="sma_cross", sizing="compound")["result"]
    names = {**result["metrics"], **{k: v for k, v in result.items() if type(v) is int and k not in ("start", "end")}}
    units = page.evaluate(
        """async (names) => {
          const m = await import("/metrics.js");
          await m.loadMetrics();
          return names.map((name) => [m.label(name), m.unitOf(name, "compound")]);
        }""",
        list(names),
    )
    for name, (label, unit) in zip(names, units, strict=True):
        assert label == metric_table.label(name)
        assert unit == metric_table.unit_of(name, "compound"), name


def test_commands_ask_for_the_same_as_the_form(desktop: Opened) -> None:
    bodies: list[dict[str, Any]] = [
        {"symbol": "AAAUSDT", "strategy": "sma_cross", "range": "2024-01", "params": {"fast": 5, "allow_short": True}},
        {"symbol": "A*,BBB", "strategy": "donchian", "weights": {"BBB": "2"}, "sizing": "compound", "capital": "1'x"},
        {"symbol": "AAAUSDT", "strategy": "sma_cross", "grid": {"fast": "5:50:5", "slow": [60, 100]}, "maker_fee": -50,
         "walk_forward": {"train": "10d", "test": "5d", "score": "total_pnl", "anchored": True}, "timeframe": "1h",
         "funding": True, "fresh": True, "slices": 3, "max_gap": 0},
    ]  # fmt: skip
    page = desktop.go("#/data")
    found = page.evaluate(
        """async (bodies) => {
          const r = await import("/request.js"), { loadOptions } = await import("/options.js");
          await loadOptions();
          return bodies.map((body) => [r.bodyOf(r.fieldsOf(body)), r.commandOf(body), r.curlOf(body)]);
        }""",
        bodies,
    )
    for body, (again, command, curl) in zip(bodies, found, strict=True):
        assert again == body
        words = shlex.split(curl)
        assert json.loads(words[words.index("-d") + 1]) == body and words[3].endswith("/api/v1/backtest")
        given = parser().parse_args(shlex.split(command)[1:])
        assert (given.symbol, given.strategy, given.range) == (
            body["symbol"],
            body["strategy"],
            body.get("range", "all"),
        )
        assert given.param == [f"{k}={str(v).lower()}" for k, v in body.get("params", {}).items()]
        maker = None if given.maker_fee is None else parse_rate(given.maker_fee, "maker_fee")
        assert maker == body.get("maker_fee") and given.funding == body.get("funding", False)
        assert given.fresh == body.get("fresh", False) and given.timeframe == body.get("timeframe")
    assert given.grid == ["fast=5:50:5", "slow=60,100"] and given.anchored and given.train == "10d"


def test_the_form_shows_the_options_that_belong_to_its_settings(desktop: Opened) -> None:
    page = desktop.go("#/new?symbol=AAAUSDT&strategy=sma_cross&sizing=notional&notional=500")
    form = page.locator("[data-ready=form]")
    expect(form.get_by_label("Money in each trade")).to_have_value("500")
    expect(form.get_by_label("Leverage")).to_have_count(0)
    form.get_by_label("Account").get_by_text("cash").click()
    expect(form.get_by_label("Money in each trade")).to_have_count(0)  # with it the sizing is gone
    form.get_by_label("Leverage").fill("3x")
    form.get_by_label("Exposure of").get_by_text("notional").click()
    form.get_by_label("Money in each trade").fill("600")
    with page.expect_response(
        lambda answer: answer.url.endswith("/plan") and "600" in str(answer.request.post_data)
    ) as at:
        pass
    assert at.value.status == 200, at.value.text()
    sent = json.loads(at.value.request.post_data or "")
    assert sent | {"params": {}} == {
        "symbol": "AAAUSDT", "strategy": "sma_cross", "params": {},
        "account": "cash", "size": "notional", "notional": "600", "leverage": "3x",
    }  # fmt: skip
