"""Take screenshots of the report and the dashboard of the latest search in a folder of runs.

python studies/screenshots/take.py --out ~/budgetnet-studies/runs/cifar10-search-cpu --images docs/images

Needs Chromium and the extra `test`.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from budgetnet.common.files import write_bytes

BUDGETNET = [sys.executable, "-m", "budgetnet"]
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WIDTH = 1280
"""Width of the browser window, in pixels."""


def main() -> None:
    """Take both screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of run folders")
    parser.add_argument("--images", type=Path, required=True, help="folder for the screenshots")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium or Chrome must be on the PATH")
    out, images = arguments.out, arguments.images
    report = out / "report.html"
    subprocess.run([*BUDGETNET, "report", "-o", str(report), "--out", str(out)], check=True)  # noqa: S603 - our own
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
        page = browser.new_page(viewport={"width": WIDTH, "height": 1500})
        page.goto(report.resolve().as_uri())
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length > 3")
        take(page, images / "report.png", height=1500)
        with served(out) as address:
            page.set_viewport_size({"width": WIDTH, "height": 1900})
            page.goto(address)
            page.get_by_text("Validation accuracy against parameters").wait_for()
            page.get_by_text("Candidates by rung").wait_for()
            page.wait_for_load_state("networkidle")
            take(page, images / "dashboard.png", height=1900)
        browser.close()


@contextmanager
def served(out: Path) -> Iterator[str]:
    """Serve the dashboard during the block; the block gets the address of the study."""
    command = [*BUDGETNET, "dashboard", "--port", "0", "--out", str(out)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    try:
        line = server.stdout.readline() if server.stdout else ""
        yield line.strip().split(": ", 1)[1]
    finally:
        server.terminate()
        server.wait()


def take(page: Page, path: Path, *, height: int) -> None:
    """Save the upper part of a page as a PNG with 256 colours, which is enough for its flat colours."""
    shot = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(256)
    target = io.BytesIO()
    picture.save(target, format="PNG", optimize=True)
    write_bytes(path, target.getvalue())
    print(f"{path}: {len(target.getvalue()):,} bytes")


if __name__ == "__main__":
    main()
