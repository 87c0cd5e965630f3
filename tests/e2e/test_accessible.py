"""Every page with axe-core, in both themes and six widths: nothing keeps a screen reader or weak eyes from it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("chdb", reason="chdb is not installed: pip install candlemill[embedded]")
pytest.importorskip("litestar", reason="litestar is not installed: pip install candlemill[gateway]")
pytest.importorskip("plotly", reason="plotly is not installed: pip install candlemill[report]")
pytest.importorskip("optuna", reason="optuna is not installed: pip install 'candlemill[optimize]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
pytest.importorskip("axe_playwright_python", reason="axe is not installed: pip install axe-playwright-python")

import axe_playwright_python
from candlemill.ingest.candles import ingest
from candlemill.store.clickhouse import ClickHouseStore
from conftest import days, write_zip
from gateway.conftest import Gateway, serving
from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as PlaywrightTimeout

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
SMA: dict[str, Any] = {"strategy": "sma_cross", "params": {"fast": 60, "slow": 240}}
GRID: dict[str, Any] = {"strategy": "sma_cross", "grid": {"fast": "20,60", "slow": "240,480"}}
JOBS: dict[str, dict[str, Any]] = {
    "run": {"symbol": "AAAUSDT", **SMA},
    "sweep": {"symbol": "AAAUSDT", **GRID},
    "walk": {"symbol": "AAAUSDT", **GRID, "walk_forward": {"train": "10d", "test": "5d"}},
    "portfolio": {"symbol": ["AAAUSDT", "BBBUSDT"], **SMA},
    "panel": {"symbol": "AAAUSDT,BBBUSDT", "strategy": "inverse_volatility", "timeframe": "1h"},
    "sweeps": {"symbol": ["AAAUSDT", "BBBUSDT"], **GRID},
}
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
# Another theme changes colours only.
RUN_AXE = {
    "light": "axe.run({ resultTypes: ['violations'] })",
    "dark": "axe.run({ resultTypes: ['violations'], runOnly: ['color-contrast'] })",
}
SERIOUS = ("serious", "critical")
STUDY = {"symbol": "AAAUSDT", **SMA, "params": {}, "space": {"fast": "20:60:10", "slow": "240:480:60"}, "trials": 10}
WIDTHS = (1440, 1280, 768, 390, 360, 320)
REPORTED = ("run", "sweep", "walk", "portfolio", "panel", "sweeps", "study")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("accessible")
    write_zip(folder / "zips", "AAAUSDT-1m-2024-01", days(1, 2, 21))
    write_zip(folder / "zips", "BBBUSDT-1m-2024-01", days(2, 5, 15))
    with ClickHouseStore(f"chdb://{folder}/db") as store:
        ingest(store, [folder / "zips"])
    with serving(folder / "db") as found:
        yield found


@pytest.fixture(scope="module")
def addresses(gateway: Gateway) -> dict[str, str]:
    """The address of every kind of page, with the selector of what is there when it is drawn."""
    ids = {name: gateway.finish(**body)["job_id"] for name, body in JOBS.items()}
    ids["study"] = gateway.wait(gateway.ask("POST", "/api/v1/optimize", STUDY)[2]["job_id"])["job_id"]
    views = {name: f"/#/job/{job}" for name, job in ids.items()}
    reports = {f"report of {name}": f"/api/v1/backtest/{ids[name]}/report" for name in REPORTED}
    single = f"{ids['run']},{ids['walk']}"
    frame = {
        "new": "/#/new",
        "jobs": "/#/jobs",
        "data": "/#/data",
        "paper": "/#/paper",
        "compare": f"/#/compare/{single}",
    }
    return {**frame, "unknown job": f"/#/job/{'a' * 32}", **views, **reports, "REST interface": "/docs"}


def drawn(page: Page, name: str) -> None:
    """Wait until a page shows what it has."""
    if name == "REST interface":
        page.wait_for_selector(".opblock")
        return
    page.wait_for_selector("html[data-ready]")
    page.wait_for_function("!document.querySelector('.busy')")
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_serious_fault_or_is_wider_than_the_screen(
    browser: Any, gateway: Gateway, addresses: dict[str, str], theme: Any
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=theme, bypass_csp=True)
    context.add_init_script(AXE.read_text())
    faults: dict[str, list[str]] = {}
    for name, address in addresses.items():
        page = context.new_page()
        page.goto(gateway.url + address)
        drawn(page, name)
        found = page.wait_for_function(RUN_AXE[theme], timeout=120_000).json_value()  # `evaluate` has no limit on time
        assert found["passes"] and found["testEngine"]["name"] == "axe-core", name
        faults[name] = [
            f"{one['id']}: {json.dumps([node['html'][:120] for node in one['nodes'][:3]])}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
        ]
        for width in WIDTHS if theme == "light" else ():
            page.set_viewport_size({"width": width, "height": 900})
            try:
                page.wait_for_function(FITS, timeout=120_000)  # figures are drawn again for the new width
            except PlaywrightTimeout:
                faults[name].append(f"wider than {width} pixels")
        page.close()
    context.close()
    assert {name: found for name, found in faults.items() if found} == {}
