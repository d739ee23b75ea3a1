"""The page in a real browser: each view, both languages, a phone, by keyboard, and the report from a file."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from foveate.cli import main
from pages.browser import CHROMIUM, DRIVER, browser, overflowing, resize, submit, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="this machine has no Chromium with its driver"),
    pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="selenium is not installed"),
]
VIEWS = ("look", "surprise", "scramble", "write", "train", "compare")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: Any) -> Any:
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--quick", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def address(demo: Any) -> Iterator[str]:
    from foveate.pages.server import build_pages
    from foveate.pages.shelf import Shelf
    from foveate.serve.server import served

    app = build_pages(Shelf([demo], device="cpu"), hosts=("127.0.0.1",))
    with served(app, app.state.worker) as address:
        yield address


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser() as driver:
        yield driver


def opened(driver: Any, address: str, view: str, language: str = "en") -> None:
    driver.get("about:blank")
    driver.get(f"{address}/?language={language}#{view}")
    until(driver, "document.body.dataset.ready")
    # the quick demo's models have positions for 192 bytes
    driver.execute_script("const text = document.getElementById('text'); text.value = text.value.slice(0, 150)")


def shown(driver: Any, view: str, name: str) -> str:
    return driver.execute_script(f"return document.querySelector('#{view} [data-out=\"{name}\"]').textContent")


def test_each_view_shows_the_command_lines_numbers(
    driver: Any, address: str, demo: Any, capsys: Any, tmp_path: Any
) -> None:
    opened(driver, address, "surprise")
    text = driver.execute_script("return document.getElementById('text').value")
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")

    def said(*words: str) -> list[dict[str, Any]]:
        assert main([*words, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]

    assert submit(driver, "surprise") == ""
    for name in ("plain", "multi-scale"):
        bpb = said("eval", str(demo / name), "--data", str(tmp_path / "text.txt"))[-1]["bpb"]
        assert f"{name}{bpb:.4f}" in shown(driver, "surprise", "summary")

    opened(driver, address, "look")
    assert submit(driver, "look") == ""
    assert "16x: groups of 16 tokens" in shown(driver, "look", "legend")
    rows = "return document.querySelectorAll('#look tbody tr').length"
    assert driver.execute_script(rows) == 19, "a row for each layer"

    opened(driver, address, "scramble")
    assert submit(driver, "scramble") == ""
    words = [
        "--context",
        "150",
        "--boundary",
        "75",
        "--conditions",
        "shuffle",
        "--permutations",
        "1",
        "--dtype",
        "fp32",
    ]
    model = driver.execute_script("return document.querySelector('#scramble form').model.value")
    [summary] = [
        record
        for record in said("probe", "shuffle", str(demo / model), "--data", str(tmp_path / "text.txt"), *words)
        if record["kind"] == "summary"
    ]
    assert f"{summary['order_horizon']} tokens (permutations: 1)" in shown(driver, "scramble", "horizon")

    opened(driver, address, "write")
    driver.execute_script(
        "const f = document.querySelector('#write form'); f.tokens.value = 30; f.temperature.value = 0"
    )
    assert submit(driver, "write") == ""
    words = ["--prompt", "The captain looked at the sea, and", "--tokens", "30", "--greedy"]
    [sample] = said("sample", str(demo / "multi-scale"), *words)
    assert sample["text"] in shown(driver, "write", "panels")

    opened(driver, address, "train")
    until(driver, "document.getElementById('train').dataset.ready > 10")
    records = [json.loads(line) for line in (demo / "multi-scale" / "metrics.jsonl").read_text().splitlines()]
    last = [record["bpb"] for record in records if record["kind"] == "valid"][-1]
    assert f"{last:.4f}" in shown(driver, "train", "table")


def test_compare_shows_and_saves_a_page(driver: Any, address: str, demo: Any, capsys: Any) -> None:
    opened(driver, address, "compare")
    assert submit(driver, "compare") == ""
    html = driver.execute_script("return document.querySelector('#compare iframe').srcdoc")
    paths = [str(demo / name) for name in ("multi-scale", "plain")]
    assert main(["compare", *paths, "--bytes", "20000", "--decode-tokens", "2", "--repeats", "1", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    for record in records:
        if record["kind"] == "quality":
            assert f"{record['bpb']:.4f}" in html
    saved = "const a = document.querySelector('#compare a'); return [a.hidden, a.download]"
    assert driver.execute_script(saved) == [False, "plain-against-multi-scale.html"]


@pytest.mark.parametrize(("width", "language", "dark"), [(390, "pt", True), (390, "en", False), (1280, "pt", False)])
def test_nothing_is_cut_or_outside(driver: Any, address: str, width: int, language: str, dark: bool) -> None:
    resize(driver, width, 900)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    try:
        for view in VIEWS[:5]:
            opened(driver, address, view, language)
            if view != "train":
                assert submit(driver, view) == ""
            else:
                until(driver, "document.getElementById('train').dataset.ready > 10")
            assert overflowing(driver) == []
        assert driver.execute_script("return document.documentElement.lang") == language
    finally:
        resize(driver, 1280, 900)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_by_keyboard(driver: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(driver, address, "look")
    tab = driver.find_element("id", "tab-look")
    tab.send_keys(Keys.ARROW_RIGHT)
    assert driver.execute_script("return document.activeElement.id") == "tab-surprise"
    driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert submit(driver, "look") == ""
    last = int(driver.execute_script("return document.getElementById('look').dataset.ready"))
    driver.execute_script("document.querySelector('#look [data-at][tabindex=\"0\"]').focus()")
    driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    until(driver, f"document.getElementById('look').dataset.ready == {last - 1}")
    focused = driver.execute_script("return [document.activeElement.dataset.at, document.activeElement.ariaCurrent]")
    assert focused == [str(last - 2), "true"], "the focus stays where it was"


def test_mistakes_are_said_on_the_page(driver: Any, address: str, demo: Any) -> None:
    opened(driver, address, "look")
    driver.execute_script("document.getElementById('text').value = ''")
    for view in ("look", "surprise", "scramble"):
        driver.execute_script(f"document.getElementById('tab-{view}').click()")
        assert submit(driver, view) == "text: there is none; write or paste some"
    opened(driver, address, "write")
    driver.execute_script("const f = document.querySelector('#write form'); f.noValidate = true; f.tokens.value = -4")
    assert submit(driver, "write") == "tokens: -4 is not a whole number from 1 to 2,000"
    opened(driver, address, "train")
    moved = demo.parent / "moved"
    shutil.move(demo / "plain", moved)
    try:
        until(driver, "document.querySelector('#train .error')")
        assert "plain" in driver.execute_script("return document.querySelector('#train .error').textContent")
    finally:
        shutil.move(moved, demo / "plain")


def test_the_report_opens_from_a_file_and_asks_for_nothing(driver: Any, demo: Any) -> None:
    report = demo / "index.html"
    assert report.stat().st_size < 5_000_000
    driver.get_log("performance")
    driver.get(report.as_uri())
    asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    addresses = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
    assert [address for address in addresses if not address.startswith(("file:", "data:"))] == []
    resize(driver, 390, 800)
    try:
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        heights = driver.execute_script(
            "return [...document.querySelectorAll('.plot svg text')].map((text) => text.getBoundingClientRect().height)"
        )
        assert min(heights) > 10, "letters that can be read"
    finally:
        resize(driver, 1280, 900)
