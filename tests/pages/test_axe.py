"""axe-core's rules on every view, as it begins, with results, with a mistake, in both themes.

It is the one of axe-core-python or, newer, of ``npm install --no-save axe-core``; ``FOVEATE_AXE`` names another file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import axe_core_python
import pytest

from pages.browser import NEEDS_BROWSER, opened, resize, submit, until

NEWER = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"
PACKAGED = Path(axe_core_python.__file__).with_name("axe.min.js")
AXE = Path(os.environ.get("FOVEATE_AXE") or (NEWER if NEWER.is_file() else PACKAGED))
pytestmark = NEEDS_BROWSER
VIEWS = ("look", "surprise", "scramble", "write", "train", "compare")
SERIOUS = ("serious", "critical")


def violations(driver: Any) -> list[str]:
    driver.execute_script(AXE.read_text(encoding="utf-8"))
    found = driver.execute_async_script(
        """const done = arguments[0];
        axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => done(violations.map((each) =>
          [each.impact, `${each.id}: ${each.nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`])))"""
    )
    return [told for impact, told in found if impact in SERIOUS]


def theme(driver: Any, name: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": name}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.mark.parametrize("view", VIEWS)
def test_no_serious_violation(driver: Any, address: str, view: str) -> None:
    try:
        opened(driver, address, view, "pt")
        states = {"as it begins": violations(driver)}
        if view == "train":
            until(driver, "document.getElementById('train').dataset.ready > 10")
        else:
            assert submit(driver, view) == ""
        driver.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
        for each in ("light", "dark"):
            theme(driver, each)
            states[f"with results, {each}"] = violations(driver)
        resize(driver, 390, 800)
        states["on a phone"] = violations(driver)
        if view in ("look", "surprise", "scramble"):
            driver.execute_script("document.getElementById('text').value = ''")
            assert submit(driver, view) != ""
        if view == "write":
            driver.execute_script(
                "const f = document.querySelector('#write form'); f.noValidate = true; f.tokens.value = 0"
            )
            assert submit(driver, view) != ""
        for each in ("light", "dark"):
            theme(driver, each)
            states[f"with a mistake, {each}"] = violations(driver)
        assert {state: found for state, found in states.items() if found} == {}
    finally:
        resize(driver, 1280, 900)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_axe_sees_what_is_wrong(driver: Any, address: str) -> None:
    opened(driver, address, "look")
    driver.execute_script("document.querySelector('#look select').closest('label').querySelector('span').remove()")
    assert any("select-name" in each for each in violations(driver))
