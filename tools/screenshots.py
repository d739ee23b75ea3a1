"""The pictures of docs/app.md: ``python tools/screenshots.py demo`` after ``make demo``; takes Chromium, selenium."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from pages.browser import browser, resize, submit, until  # noqa: E402

MOST_BYTES = 300_000
VIEWS = ("look", "surprise", "write")
WIDTH, HEIGHT = 1000, 910


def main() -> None:
    from foveate.pages.server import build_pages
    from foveate.pages.shelf import Shelf
    from foveate.serve.server import served

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", help="the folder of foveate demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    args = parser.parse_args()
    app = build_pages(Shelf([args.demo]), hosts=("127.0.0.1",))
    with served(app, app.state.worker) as address, browser(WIDTH, HEIGHT) as driver:
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        for view in VIEWS:
            driver.get("about:blank")
            driver.get(f"{address}/?language=en#{view}")
            until(driver, "document.body.dataset.ready")
            driver.execute_script("document.querySelector('#write form').tokens.value = 60")
            for _ in range(2):  # what is timed is timed warm
                submit(driver, view)
            resize(driver, WIDTH, min(HEIGHT, driver.execute_script("return document.body.scrollHeight")))
            save(driver.get_screenshot_as_png(), args.out / f"app-{view}.png")
            resize(driver, WIDTH, HEIGHT)


def save(png: bytes, path: Path) -> None:
    """As small as it gets without a loss."""
    from PIL import Image

    Image.open(io.BytesIO(png)).convert("RGB").save(path, optimize=True)
    assert path.stat().st_size < MOST_BYTES, f"{path} has {path.stat().st_size:,} bytes"
    print(path, f"{path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
