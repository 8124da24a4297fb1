"""Screenshot of a finished run's report for the README: docs/report.png, at most 150 KB.

    make demo && .venv/bin/python benchmarks/screenshot.py

Playwright drives the system's Chromium (`apt install chromium`).
"""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
LIMIT = 150_000  # bytes; Git keeps every version of a binary file
COLOURS = 128  # a palette of this size shows the charts unchanged and takes a third of the bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "report.png")
    parser.add_argument("--section", default="results", help="id of the heading at the top of the picture")
    parser.add_argument("--height", type=int, default=880, help="pixels")
    arguments = parser.parse_args()
    picture = screenshot(arguments.run / "report" / "index.html", arguments.section, arguments.height)
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(arguments.out, optimize=True)
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {image.width} x {image.height}, {size:,} bytes")
    if size > LIMIT:
        sys.exit(f"got {size:,} bytes, the limit is {LIMIT:,}; lower --height")


def screenshot(page_file: Path, section: str, height: int) -> bytes:
    """PNG of the page, 1,200 pixels wide, from the heading `section` downwards."""
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(CHROMIUM)} is installed; try: apt install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": height}, color_scheme="light")
        page.goto(page_file.resolve().as_uri())
        page.wait_for_load_state("load")
        page.wait_for_timeout(1500)  # plotly draws after the load event
        page.evaluate(f"document.getElementById({section!r}).scrollIntoView()")
        page.wait_for_timeout(500)
        picture = page.screenshot()
        chromium.close()
    return picture


if __name__ == "__main__":
    main()
