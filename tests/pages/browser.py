"""A headless Chromium, Debian's or whichever is installed, and what tests do with it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
NEEDS_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="this machine has no Chromium with its driver"),
    pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="selenium is not installed"),
]
SECONDS = 300  # a page may take on a machine that is busy


@contextmanager
def browser(width: int = 1280, height: int = 900, *, dark: bool = False) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--force-device-scale-factor=1",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        resize(driver, width, height)
        if dark:
            features = [{"name": "prefers-color-scheme", "value": "dark"}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.set_script_timeout(SECONDS)
        yield driver
    finally:
        driver.quit()


def resize(driver: Any, width: int, height: int) -> None:
    """The page's own size, which a window of a desktop may not be as narrow as."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def until(driver: Any, script: str) -> Any:
    """What a script returns once that is something."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, SECONDS, poll_frequency=0.1).until(
        lambda each: each.execute_script(f"return {script}")
    )


def opened(driver: Any, address: str, view: str, language: str = "en") -> None:
    driver.get("about:blank")
    driver.get(f"{address}/?language={language}#{view}")
    until(driver, "document.body.dataset.ready")
    # the quick demo's models have positions for 192 bytes
    driver.execute_script("const text = document.getElementById('text'); text.value = text.value.slice(0, 150)")


def submit(driver: Any, view: str) -> str:
    """Ask a view for its work and wait for it; returns what is said of mistakes."""
    driver.execute_script(
        "const view = document.getElementById(arguments[0]); delete view.dataset.ready;"
        "view.querySelector('.task').replaceChildren(); view.querySelector('form').requestSubmit()",
        view,
    )
    until(driver, f"document.querySelector('#{view}[data-ready], #{view} .error') !== null")
    return driver.execute_script(f"return document.querySelector('#{view} .error')?.textContent ?? ''")


def overflowing(driver: Any) -> list[str]:
    """What is wider than the page, but for what scrolls by itself, and texts that are cut."""
    return driver.execute_script("""
      const wide = document.documentElement.clientWidth, found = [];
      if (document.documentElement.scrollWidth > wide) found.push('the page');
      const scrolls = (one) => one.closest('.scroll, .plot, .clock, .tokens, iframe, svg');
      const texts = ['BUTTON', 'LABEL', 'H1', 'H2', 'P', 'LI', 'OUTPUT', 'TEXT'];
      for (const one of document.querySelectorAll('body *')) {
        const box = one.getBoundingClientRect(), name = `${one.tagName} ${one.textContent.slice(0, 40)}`;
        if (!box.width || scrolls(one)) continue;
        if (box.right > wide + 1 || box.left < -1) found.push(`outside: ${name}`);
        if (texts.includes(one.tagName) && one.scrollWidth > one.clientWidth + 1) found.push(`cut: ${name}`);
      }
      for (const one of document.querySelectorAll('svg text')) {
        const box = one.getBoundingClientRect();
        if (box.width && !one.closest('.plot') && (box.right > wide || box.left < 0)) found.push(one.textContent);
      }
      return found""")
