from __future__ import annotations

import json

import pytest

from foveate.cli import main
from foveate.cli.info import data_size, picture, quantity
from foveate.cost import Load, predict
from foveate.spec import HierarchySpec


def test_json_is_the_predicted_cost(capsys) -> None:
    words = "info --hidden 128 --heads 2 --levels 4:width=256,heads=8 --vocab 300 --context 2k --dtype bf16 --json"
    assert main([*words.split(), "--walk", "2@1 8@4 2@1"]) == 0
    out, err = capsys.readouterr()
    spec = HierarchySpec.parse("2@1 8@4 2@1", width=128, heads=2, levels={4: {"width": 256, "heads": 8}})
    assert json.loads(out) == predict(spec, Load(context=2048, vocab_size=300, dtype="bfloat16")).to_json()
    assert err == ""


def test_a_preset_stands_for_its_walk(capsys) -> None:
    assert main(["info", "--walk", "hourglass:12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["walk"] == "2@1 8@4 2@1"


@pytest.fixture
def run(tmp_path):
    config = {
        "model_type": "foveate",
        "walk": "1@1 2@8 1@1",
        "vocab_size": 77,
        "hidden_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 100,
        "levels": {"8": {"width": 96}},
        "pooling": "mean",
        "expanding": "repeat",
        "max_position_embeddings": 640,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_run_is_read_from_its_config(run, capsys) -> None:
    assert main(["info", str(run), "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    spec = HierarchySpec.parse(
        "1@1 2@8 1@1",
        width=64,
        heads=2,
        kv_heads=1,
        feed_forward=100,
        levels={8: {"width": 96}},
        pooling="mean",
        expanding="repeat",
    )
    load = Load(context=640, vocab_size=77, tied=False)
    assert cost == {"run": str(run)} | predict(spec, load).to_json()


def test_flags_overrule_a_runs_context(run, capsys) -> None:
    assert main(["info", str(run), "--context", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["context"] == 64


def test_a_config_that_transformers_wrote_is_read(tmp_path, capsys) -> None:
    from foveate import FoveateConfig, FoveateForCausalLM

    config = FoveateConfig(walk="1@1 1@4 1@1", vocab_size=50, hidden_size=32, levels={"4": {"width": 48}})
    config.save_pretrained(tmp_path)
    assert main(["info", str(tmp_path), "--json"]) == 0
    params = json.loads(capsys.readouterr().out)["params"]
    assert params == sum(p.numel() for p in FoveateForCausalLM(config).parameters())


def test_the_table_shows_every_level_and_the_total(capsys) -> None:
    assert main(["info", "--walk", "2@1 8@4 2@1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "walk 2@1 8@4 2@1"
    rows = {line.split()[0]: line.split() for line in lines[lines.index("") + 4 :] if line.strip()}
    assert rows["1x"][1:4] == ["4", "256", "1"]
    assert rows["4x"][1:4] == ["8", "256", "1/4"]
    assert rows["total"][1:3] == ["12", "6"]
    assert max(map(len, lines[:14])) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--walk", ""], "--walk is missing"),
        ([], "--walk is missing"),
        (["--walk", "3@0"], "stride 0"),
        (["--walk", "2@1 2@6 2@4"], "stride 6 is not a multiple of stride 4"),
        (["--walk", "2@4"], "must start and end at stride 1"),
        (["--walk", "x"], "neither a preset"),
        (["--walk", "1@1", "--context", "0"], "'0' must be a whole number from 1"),
        (["--walk", "1@1", "--context", "2G"], "context is 2147483648; it must be"),
        (["--walk", "1@1", "--heads", "0"], "heads is 0"),
        (["--walk", "1@1", "--pooling", "max"], "invalid choice: 'max'"),
        (["--walk", "1@1", "nowhere"], "not both"),
        (["nowhere"], "there is no model at nowhere"),
        (["."], "has no config.json"),
    ],
)
def test_mistakes(words, message, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["info", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"model_type": "foveate", "wal', "config.json is damaged"),
        (b"\xff\xfe{}", "config.json is damaged"),
        (b"[]", "model_type is None"),
        (b'{"model_type": "llama"}', "model_type is 'llama'"),
        (b'{"model_type": "foveate"}', "has no walk"),
        (b'{"model_type": "foveate", "walk": "1@1", "hidden_size": "wide"}', "width is 'wide'"),
        (b'{"model_type": "foveate", "walk": "1@1", "vocab_size": -3}', "vocab_size is -3"),
    ],
)
def test_damaged_runs(run, content, message, capsys) -> None:
    (run / "config.json").write_bytes(content)
    assert main(["info", str(run)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_picture() -> None:
    assert picture(HierarchySpec.parse("2@1 1@4 2@16 1@4 2@1:window8"), utf8=False) == [
        " 1x ######            ======",
        " 4x       ###      ###",
        "16x          ######",
        "    attention: # full, = window",
    ]
    assert picture(HierarchySpec.parse("100@1 100@4 0@1"), utf8=False) == [
        "1x #########################",
        "4x                          #########################",
        "   a cell is 4 layers",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (1234567, "1.23 MB"), (4e18, "4e+03 PB")]
)
def test_data_size(value, text) -> None:
    assert data_size(value) == text
    assert quantity(value) == text.replace(" ", "").removesuffix("B")
