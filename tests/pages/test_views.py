"""The page's numbers are those of the command line."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from foveate.cli import main
from foveate.pages.shelf import Shelf
from foveate.pages.surprise import _items
from foveate.pages.texts import Encoded
from foveate.pages.training import follow
from pages.conftest import TEXT


def cli(capsys: Any, *words: str) -> list[dict[str, Any]]:
    assert main([*words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_surprise_is_what_eval_says(ask: Any, folder: Any, capsys: Any) -> None:
    found, events = ask("surprise", models=["hourglass", "llama"], text=TEXT)
    for scored in found["models"]:
        path = str(folder / scored["name"])
        [said] = cli(capsys, "eval", path, "--data", str(folder / "text.txt"), "--context", str(scored["context"]))
        assert scored["bpb"] == pytest.approx(said["bpb"], rel=1e-5)
        assert (scored["tokens"], scored["bytes"]) == (said["tokens"], said["bytes"])
    assert "".join(item["text"] for item in found["items"]) == TEXT
    for number, scored in enumerate(found["models"]):
        nats = sum(item["nats"][number] for item in found["items"])
        assert nats == pytest.approx(scored["nll_per_token"] * scored["tokens"], rel=1e-5)
    kinds = {each["kind"]: each for each in found["kinds"]}
    assert kinds["name"]["items"] == 1, "Anna"
    assert events[-1]["progress"] == 1


def test_pieces_of_two_tokenizers_hold_the_same_text() -> None:
    text = "naïve cat"

    def encoded(*ends: int) -> Encoded:
        starts = np.array([0, *ends[:-1]])
        return Encoded(text=text, ids=np.zeros(len(ends), int), starts=starts, ends=np.array(ends), mark=0)

    words, bytes_ = encoded(5, 9), encoded(1, 2, 3, 3, 4, 5, 6, 7, 8, 9)
    bytes_.starts[3] = 2  # the second byte of ï is of the same character
    items = _items(text, [(words, np.array([3.0, 4.0])), (bytes_, np.ones(10))])
    assert items == [{"text": "naïve", "nats": [3.0, 6.0]}, {"text": " cat", "nats": [4.0, 4.0]}]
    alone = _items(text, [(bytes_, np.ones(10))])
    assert [item["nats"] for item in alone[1:3]] == [[1.0], [2.0]], "both bytes of a character are one piece"


def test_scramble_is_the_shuffle_probe_of_one_sequence(ask: Any, folder: Any, capsys: Any) -> None:
    found, events = ask("scramble", model="hourglass", text=TEXT, boundary=40, permutations=3, unit="word", seed=5)
    data = str(folder / "text.txt")
    words = ["--context", str(found["tokens"]), "--boundary", "40", "--unit", "word", "--permutations", "3"]
    command = ["probe", "shuffle", str(folder / "hourglass"), "--data", data, *words, "--seed", "5", "--dtype", "fp32"]
    records = cli(capsys, *command, "--conditions", "shuffle")
    curve = next(record for record in records if record.get("condition") == "shuffle")
    assert found["delta"] == pytest.approx(curve["delta_nats"], abs=2e-5)
    assert np.add(found["original"], found["delta"]) == pytest.approx(curve["nats"], abs=2e-5)
    assert found["horizon"] == records[-1]["order_horizon"]
    assert [event["permutation"] for event in events[1:]] == [1, 2, 3], "each is drawn as it comes"
    fewer, _ = ask("scramble", model="hourglass", text=TEXT, boundary=40, permutations=1, unit="word", seed=5)
    scrambled = np.add(fewer["original"], fewer["delta"])
    assert scrambled == pytest.approx(events[1]["scrambled"], abs=1e-5), "the first permutation stays the same"


@pytest.mark.parametrize("name", ["hourglass", "llama"])
@pytest.mark.parametrize("drawn", [["--greedy"], ["--temperature", "0.7", "--seed", "3"]])
def test_write_writes_what_sample_writes(ask: Any, folder: Any, capsys: Any, name: str, drawn: list[str]) -> None:
    temperature = 0 if drawn == ["--greedy"] else 0.7
    found, events = ask("write", model=name, prompt="The cat", tokens=24, temperature=temperature, seed=3)
    [said] = cli(capsys, "sample", str(folder / name), "--prompt", "The cat", "--tokens", "24", *drawn)
    assert (found["text"], found["tokens"]) == (said["text"], said["tokens"])
    assert "".join(event.get("piece", "") for event in events) == found["text"]
    assert found["state_bytes"] > 0


def test_state_bytes_of_another_model_are_its_keys_and_values(ask: Any) -> None:
    found, _ = ask("write", model="llama", prompt="cat", tokens=5, temperature=0)
    assert found["state_bytes"] == 2 * 2 * 16 * 4 * (found["position"]), "layers, keys and values, width, fp32, tokens"


def test_a_run_is_followed_from_where_it_was_read_to(folder: Any, tmp_path: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "hourglass", run)
    (run / "foveate.yaml").write_text("data: [books]\nout: run\nwalk: 1@1 1@4 1@1\ntokens: 5000\n")
    log = run / "metrics.jsonl"
    log.write_text('{"kind": "train", "step": 1}\n{"kind": "valid", "st')
    shelf = Shelf([run])
    first = follow(shelf, "run", 0, 0)
    assert (first["records"], first["tokens"]) == ([{"kind": "train", "step": 1}], 5000), "no half of a line"
    with log.open("a") as file:
        file.write('ep": 2}\n')
    second = follow(shelf, "run", first["after"], first["log"])
    assert second["records"] == [{"kind": "valid", "step": 2}]
    assert follow(shelf, "run", second["after"], second["log"])["records"] == []
    log.rename(run / "old")  # resuming begins another file, be it longer
    log.write_text('{"kind": "train", "step": 7, "loss": 1.5, "more": "' + "x" * 200 + '"}\n')
    third = follow(shelf, "run", second["after"], second["log"])
    assert [record["step"] for record in third["records"]] == [7]
    shutil.rmtree(run)
    with pytest.raises(ValueError, match="run has gone: there is nothing at"):
        follow(shelf, "run", 0, 0)


@pytest.mark.slow
def test_compare_is_what_compare_says(ask: Any, folder: Any, capsys: Any, monkeypatch: Any) -> None:
    from dataclasses import replace

    from foveate.pages import comparing

    plan = comparing.Plan
    small = {"data": (str(folder / "text.txt"),), "context": 32, "decode_contexts": (16,)}
    monkeypatch.setattr(comparing, "Plan", lambda **given: replace(plan(**given), **small))
    found, _ = ask("compare", models=["plain", "hourglass"])
    words = ["--data", str(folder / "text.txt"), "--context", "32", "--decode-context", "16", "--repeats", "1"]
    said = cli(capsys, "compare", str(folder / "plain"), str(folder / "hourglass"), *words)
    pick = lambda records, kind: [r["bpb"] for r in records if r["kind"] == kind]  # noqa: E731
    for kind in ("quality", "difference"):
        assert pick(found["records"], kind) == pytest.approx(pick(said, kind), rel=1e-6)
    assert f"{pick(said, 'quality')[1]:.4f}" in found["html"]
    assert torch.is_grad_enabled()
