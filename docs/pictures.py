"""Make the pictures of the documentation: run the tutorial's commands in a temporary folder and photograph what they
wrote.

    .venv/bin/python docs/pictures.py

Needs Chromium (/usr/bin/chromium, or playwright's own).
"""

import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests/support"))
from pages import PageRunner, blocks_of  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
SIZE = (900, 620)
WHOLE = (1280, 960)  # a desktop's window


def main() -> None:
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        os.chdir(folder)
        os.environ["PWD"] = name
        (folder / "benchmarks").symlink_to(DOCS.parent / "benchmarks")
        runner = PageRunner(folder)
        options = {"executable_path": str(CHROMIUM)} if CHROMIUM.exists() else {}
        browser = playwright.chromium.launch(args=["--no-sandbox"], **options)
        try:
            for block in blocks_of(DOCS / "tutorial.md"):
                if block.is_run:
                    runner.run(block)
            photograph(browser, (folder / "run.html").as_uri(), "tutorial-run.png", "#equity")
            photograph(browser, (folder / "sweep.html").as_uri(), "tutorial-sweep.png", "#heat")
            photograph(browser, (folder / "walk.html").as_uri(), "tutorial-walk.png", "#scores")
            gateway = f"http://localhost:{runner.port('8080')}"
            photograph(browser, f"{gateway}/#/job/{first_of(gateway, 'sweep')}", "tutorial-serve.png")
            photograph(browser, f"{gateway}/#/job/{first_of(gateway, 'backtest')}", "dashboard.png", size=WHOLE)
            photograph(browser, (folder / "run.html").as_uri(), "report.png", size=WHOLE)
        finally:
            browser.close()
            runner.close()


def first_of(gateway: str, kind: str) -> str:
    """Return the id of the first job of a kind."""
    with urllib.request.urlopen(f"{gateway}/api/v1/backtests?kind={kind}", timeout=60) as answer:
        return str(json.load(answer)["items"][-1]["job_id"])


def photograph(browser: Browser, address: str, name: str, part: str = "", size: tuple[int, int] = SIZE) -> None:
    """Take a picture of a page's top, or of the element `part`."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # charts draw themselves
    if part:
        page.locator(part).first.scroll_into_view_if_needed()
        page.locator(part).first.screenshot(path=DOCS / name)
    else:
        page.screenshot(path=DOCS / name)
    page.close()


if __name__ == "__main__":
    main()
