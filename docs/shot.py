"""Take the README's screenshots: a real demo, ill on purpose, in a real Chromium."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright


HERE = Path(__file__).parent
ILL = "dead-neurons"
RUN = f"demo-{ILL}"
SIZE = {"width": 1440, "height": 1500}
BROWSER = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> int:
    """Train, open the page, and take it in light and dark."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "spikewatch"]
        subprocess.run(
            [*command, "demo", "--headless", "--ill", ILL, "--epochs", "8", "--dir", folder],
            check=False,  # exits with 1: alerts fire
        )
        show = [*command, "show", folder, "--no-browser"]
        with subprocess.Popen(show, stdout=subprocess.PIPE, text=True) as app:
            url = next(iter(app.stdout or ())).split()[0]
            try:
                with sync_playwright() as playwright:
                    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
                    browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
                    for scheme in ("light", "dark"):
                        page = browser.new_page(viewport=SIZE, color_scheme=scheme)
                        take(page, f"{url}/run?run={RUN}&live=false", HERE / f"page-{scheme}.png")
                    browser.close()
            finally:
                app.terminate()
    return 0


def take(page: Page, url: str, file: Path) -> None:
    """Save the page when every chart has been drawn."""
    page.goto(url)
    page.wait_for_function(
        "() => { const plots = [...document.querySelectorAll('.spikewatch-plot')];"
        " return plots.length > 4 && plots.every(p => p.dataset.drawn) }"
    )
    page.wait_for_load_state("networkidle")
    page.screenshot(path=file)
    sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    sys.exit(main())
