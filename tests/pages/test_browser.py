"""The page in a real browser: each view, both languages, a phone, by keyboard, and the report from a file."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch

from foveate.cli import main
from pages.browser import NEEDS_BROWSER, opened, overflowing, resize, submit, until

pytestmark = NEEDS_BROWSER
VIEWS = ("look", "surprise", "scramble", "write", "train", "compare")


def shown(driver: Any, view: str, name: str) -> str:
    return driver.execute_script(f"return document.querySelector('#{view} [data-out=\"{name}\"]').textContent")


def cells(driver: Any, view: str, name: str) -> list[list[str]]:
    """The rows of a table, as they are read."""
    return driver.execute_script(
        f"""const box = document.querySelector('#{view} [data-out="{name}"]');
        const details = box.closest('details');
        if (details && !details.open) (details.open = true), details.ontoggle();
        return [...box.querySelectorAll('tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"""
    )


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", "").rstrip(" \u00a0%x"))


def numbers(rows: list[list[str]], column: int) -> list[float]:
    return [number(row[column]) for row in rows]


@pytest.fixture
def said(capsys: Any) -> Any:
    """What a command prints with ``--json``."""

    def said(*words: object) -> list[dict[str, Any]]:
        assert main([*map(str, words), "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]

    return said


@pytest.fixture
def text(driver: Any, address: str, tmp_path: Any) -> Any:
    opened(driver, address, "look")
    path = tmp_path / "text.txt"
    path.write_text(driver.execute_script("return document.getElementById('text').value"), encoding="utf-8")
    return path


def test_look_back_shows_the_walk_and_all_of_the_attention(driver: Any, address: str, demo: Any, said: Any) -> None:
    opened(driver, address, "look")
    assert submit(driver, "look") == ""
    [info] = said("info", demo / "multi-scale")
    rows = cells(driver, "look", "table")
    strides = [int(row[1].rpartition("@")[2]) for row in rows]
    assert {level["stride"]: level["layers"] for level in info["levels"]} == {
        stride: strides.count(stride) for stride in (1, 4, 16)
    }
    position = int(driver.execute_script("return document.getElementById('look').dataset.ready"))
    for row, stride in zip(rows, strides, strict=True):
        assert [share for share in row[3:] if share] == ["100.00\u00a0%"], "each level sees its own units alone"
        assert row[2] == ("yes" if (position + 1) % stride == 0 else "no")
    ran = driver.execute_script("return document.querySelectorAll('#look .clock i.ran').length")
    assert ran == sum((position + 1) % stride == 0 for stride in strides)
    legend = shown(driver, "look", "legend")
    for stride in (1, 4, 16):
        keys = (position + 1) // stride * strides.count(stride) / len(strides)
        assert f"{stride}x: " in legend
        assert f"{strides.count(stride) / len(strides):.0%}".replace("%", "\u00a0%") in legend
        assert f"{keys:.1f} keys" in legend, "full attention reads every unit"


def test_surprise_shows_what_eval_says(driver: Any, address: str, demo: Any, said: Any, text: Any) -> None:
    opened(driver, address, "surprise")
    assert submit(driver, "surprise") == ""
    rows = cells(driver, "surprise", "summary")
    assert [row[0] for row in rows] == ["multi-scale", "plain"]
    losses = cells(driver, "surprise", "table")
    for column, (name, bpb, per_token, tokens, size, _) in enumerate(rows, 1):
        [found] = said("eval", demo / name, "--data", text)
        assert (bpb, per_token) == (f"{found['bpb']:.4f}", f"{found['nll_per_token']:.4f}")
        assert (number(tokens), number(size)) == (found["tokens"], found["bytes"])
        total = found["nll_per_token"] * found["tokens"]
        assert sum(numbers(losses, column)) == pytest.approx(total, abs=6e-4 * len(losses))
    differences = [a - b for a, b in zip(numbers(losses, 1), numbers(losses, 2), strict=True)]
    assert numbers(losses, 3) == pytest.approx(differences, abs=2e-3)


def test_scramble_shows_what_the_probe_says(driver: Any, address: str, demo: Any, said: Any, text: Any) -> None:
    opened(driver, address, "scramble")
    assert submit(driver, "scramble") == ""
    model = driver.execute_script("return document.querySelector('#scramble form').model.value")
    boundary = int(driver.execute_script("return document.querySelector('#scramble output').value").split()[0])
    rows = cells(driver, "scramble", "table")
    words = ["--context", boundary + len(rows), "--boundary", boundary, "--conditions", "shuffle"]
    records = said(*("probe", "shuffle", demo / model, "--data", text, *words, "--permutations", 1, "--dtype", "fp32"))
    curve = next(record for record in records if record.get("condition") == "shuffle")
    [summary] = [record for record in records if record["kind"] == "summary"]
    assert f"{summary['order_horizon']} tokens (permutations: 1)" in shown(driver, "scramble", "horizon")
    assert numbers(rows, 2) == pytest.approx(curve["nats"], abs=1e-3)
    assert numbers(rows, 3) == pytest.approx(curve["delta_nats"], abs=1e-3)
    assert numbers(rows, 4)[-1] == summary["order_horizon"], "the running horizon ends there"


def test_write_writes_what_sample_writes(driver: Any, address: str, demo: Any, said: Any) -> None:
    from foveate.data.prompt import encode_prompt
    from foveate.hf.stream import stream
    from foveate.loading import load

    opened(driver, address, "write")
    driver.execute_script(
        "const f = document.querySelector('#write form'); f.tokens.value = 30; f.temperature.value = 0"
    )
    assert submit(driver, "write") == ""
    prompt = "The captain looked at the sea, and"
    panels = driver.execute_script(
        """return [...document.querySelectorAll('#write article')].map((one) => [one.dataset.model,
        one.querySelector('.prose').textContent, Object.fromEntries([...one.querySelectorAll('dd')].map((each) =>
        [each.dataset.value, each.textContent]))])"""
    )
    assert [name for name, _, _ in panels] == ["multi-scale", "plain"]
    for name, written, costs in panels:
        [sample] = said("sample", demo / name, "--prompt", prompt, "--tokens", "30", "--greedy")
        [info] = said("info", demo / name)
        assert written == prompt + sample["text"]
        assert int(costs["tokens"]) == sample["tokens"]
        assert costs["ran"] == f"{info['layer_runs_per_token']:.1f} / {info['layers']}"
        model, tokenizer = load(demo / name)
        cache, given = model.make_cache(1), torch.tensor([encode_prompt(tokenizer, prompt)])
        assert len(list(stream(model, given, max_new_tokens=30, cache=cache, do_sample=False))) == sample["tokens"]
        size, unit = costs["state"].split("\u00a0")
        assert float(size) * {"kB": 1e3, "MB": 1e6}[unit] == pytest.approx(cache.nbytes, rel=0.05)
    verdict = shown(driver, "write", "verdict")
    ratio = number(panels[0][2]["speed"]) / number(panels[1][2]["speed"])
    assert number(verdict.split(": ")[1].split()[0]) == pytest.approx(ratio, abs=0.02)


def test_train_shows_the_log_over_one_another(driver: Any, address: str, demo: Any) -> None:
    opened(driver, address, "train")
    until(driver, "document.getElementById('train').dataset.ready > 10")
    rows = {row[0]: row for row in cells(driver, "train", "table")}
    for name in ("plain", "multi-scale"):
        records = [json.loads(line) for line in (demo / name / "metrics.jsonl").read_text().splitlines()]
        last = {record["kind"]: record for record in records}
        assert rows[name][2] == f"{last['train']['step']:,}"
        assert rows[name][5] == f"{last['valid']['bpb']:.4f}"
        peak, unit = rows[name][6].split("\u00a0")
        assert number(peak) * {"MB": 1e6, "GB": 1e9}[unit] == pytest.approx(last["train"]["memory_bytes"], rel=0.006)
        texts = [record["prompt"] + record["text"] for record in records if record["kind"] == "sample"]
        assert len(texts) >= 3
        for each in texts[-4:]:
            assert each in shown(driver, "train", "samples")
    for name in ("valid", "loss", "speed", "memory"):
        lines = f"return document.querySelectorAll('#train [data-out=\"{name}\"] polyline').length"
        assert driver.execute_script(lines) == 2, "one over the other"
    # what is logged from now on appears by itself
    log = demo / "plain" / "metrics.jsonl"
    kept = log.read_bytes()
    with log.open("a") as file:
        file.write(json.dumps({**last["valid"], "step": 99_999, "bpb": 1.2345}) + "\n")
    until(driver, "document.querySelector('#train table').textContent.includes('1.2345')")
    log.write_bytes(kept)


def test_compare_shows_and_saves_what_compare_says(driver: Any, address: str, demo: Any, said: Any) -> None:
    from foveate.report.units import data_size

    opened(driver, address, "compare")
    assert submit(driver, "compare") == ""
    html = driver.execute_script("return document.querySelector('#compare iframe').srcdoc")
    paths = [demo / name for name in ("plain", "multi-scale")]
    records = said("compare", *paths, "--bytes", "20000", "--decode-tokens", "2", "--repeats", "1")
    counted = 0
    for record in records:
        if record["kind"] == "quality":
            assert f"{record['bpb']:.4f}" in html
            counted += 1
        if record["kind"] == "difference":
            for name in ("bpb", "low", "high"):
                assert f"{record[name]:.4f}".replace("-", "−") in html
            counted += 1
        if record["kind"] == "training_memory":
            assert data_size(record["kept_bytes"]).replace(" ", "\u00a0") in html
            counted += 1
        if record["kind"] == "decode":
            assert data_size(record["state_bytes"]).replace(" ", "\u00a0") in html
    assert counted == 5
    saved = "const a = document.querySelector('#compare a'); return [a.hidden, a.download]"
    assert driver.execute_script(saved) == [False, "multi-scale-against-plain.html"]


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
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
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


def test_a_mistake_is_said_in_the_pages_language(driver: Any, address: str) -> None:
    opened(driver, address, "look")
    driver.execute_script("document.getElementById('text').value = ''")
    assert submit(driver, "look") == "text: there is none; write or paste some"
    choose = "const to = document.getElementById('language'); to.value = arguments[0]; to.onchange()"
    error = "return [...document.querySelectorAll('#look .error span')].map((one) => [one.textContent, one.lang])"
    driver.execute_script(choose, "pt")
    assert driver.execute_script(error) == [["texto: não há nenhum; escreva ou cole algum", "pt"]]
    assert driver.title == "Foveate: veja um modelo olhar para trás"
    driver.execute_script(choose, "en")
    assert driver.execute_script(error) == [["text: there is none; write or paste some", "en"]]


def test_stop_stops_at_once(driver: Any, address: str) -> None:
    opened(driver, address, "compare")
    driver.execute_script(
        "const f = document.querySelector('#compare form'); f.effort.value = 'full'; f.requestSubmit()"
    )
    until(driver, "document.querySelector('#compare .task').textContent.includes('training step')")
    driver.execute_script("document.querySelector('#compare .stop').click()")
    until(driver, "document.querySelector('#compare .task').textContent === 'stopped'")
    opened(driver, address, "surprise")
    assert submit(driver, "surprise") == "", "the next in the queue has his turn"
    assert driver.execute_script("return document.querySelector('#compare').dataset.ready ?? null") is None


GARBAGE = ["", "-5", "1e30", "0.5", "nobody"]


@pytest.mark.parametrize("view", [view for view in VIEWS if view not in ("train", "compare")])
def test_garbage_on_every_control_is_a_line_or_a_result(driver: Any, address: str, view: str) -> None:
    controls = f"[...document.querySelectorAll('#{view} form :is(input, select, textarea)')].map((one) => one.name)"
    opened(driver, address, view)
    names = driver.execute_script(f"return {controls}")
    assert len(names) >= 2
    driver.get_log("browser")
    said = []
    for name in names:
        opened(driver, address, view)
        for junk in GARBAGE:
            driver.execute_script(
                """const form = document.querySelector(`#${arguments[0]} form`), one = form[arguments[1]];
                form.noValidate = true;
                if (one.options) one.append(new Option(arguments[2], arguments[2]));
                one.value = arguments[2];
                if (form.tokens && arguments[1] !== 'tokens') form.tokens.value = 2""",
                *(view, name, junk),
            )
            said.append(submit(driver, view))
            assert "\n" not in said[-1]
            assert "Traceback" not in said[-1]
            assert "internal error" not in said[-1]
    assert sum(map(bool, said)) >= len(names), "most of it is refused"
    told = [entry["message"] for entry in driver.get_log("browser") if entry["source"] == "javascript"]
    assert told == []


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
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False}
        assert driver.execute_cdp_cmd("Page.printToPDF", paper)["data"]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        resize(driver, 718, 1000)  # what a page of A4 is wide between its margins
        printed = """return [...document.querySelectorAll('.plot svg')].map((one) => [one.getBoundingClientRect().right,
            Math.min(...[...one.querySelectorAll('text')].map((text) => text.getBoundingClientRect().height))])"""
        for right, height in driver.execute_script(printed):
            assert right <= 718, "nothing is cut"
            assert height > 9
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        resize(driver, 1280, 900)
