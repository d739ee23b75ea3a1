from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, LlamaModel

from foveate.data.tokenizer import make_tokenizer
from foveate.errors import FoveateError
from foveate.loading import load, model_folder
from foveate.loading.manifest import write_manifest


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama of transformers, saved in half precision with a byte tokenizer."""
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    folder = tmp_path / "model"
    LlamaForCausalLM(config).half().save_pretrained(folder)
    make_tokenizer("bytes", list).save_pretrained(folder)
    return folder


def test_gives_model_and_tokenizer_ready_for_use(folder) -> None:
    model, tokenizer = load(folder)
    assert type(model) is LlamaForCausalLM
    assert not model.training
    assert model.dtype == torch.float32
    assert tokenizer("ab")["input_ids"] == [256, 97, 98]


@pytest.mark.parametrize(
    ("dtype", "loaded"),
    [("auto", torch.float16), ("bf16", torch.bfloat16), ("float32", torch.float32), (torch.float16, torch.float16)],
)
def test_precision_can_be_chosen(folder, dtype, loaded) -> None:
    assert load(folder, dtype=dtype, device="cpu")[0].dtype == loaded


def edit_config(folder, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut_short(path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def pickle_weights(folder) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def index_elsewhere(folder) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))


def keep_part_of_weights(folder) -> None:
    LlamaModel(LlamaConfig.from_pretrained(folder)).save_pretrained(folder)
    edit_config(folder, architectures=["LlamaForCausalLM"])


def become_bert(folder) -> None:
    config = BertConfig(
        vocab_size=257, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertForMaskedLM(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda folder: (folder / "config.json").unlink(), "is not a model: it has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON: Expecting property name"),
        (lambda folder: (folder / "config.json").write_text("{}"), "it has no 'model_type'"),
        (
            lambda folder: edit_config(folder, model_type="new"),
            "is of model type 'new', which cannot be loaded without",
        ),
        (lambda folder: edit_config(folder, hidden_size=24), "(257, 16), where its configuration asks for (257, 24)"),
        (lambda folder: (folder / "model.safetensors").unlink(), "is damaged: model.safetensors is missing"),
        (lambda folder: cut_short(folder / "model.safetensors"), "is damaged: model.safetensors has "),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "model.safetensors is cut short or not"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\4" + b"\0" * 7 + b"{no}"), "a damaged header"),
        (index_elsewhere, "names files outside of its folder"),
        (pickle_weights, "has its weights pickled, in pytorch_model.bin, which could run any code"),
        (keep_part_of_weights, "lacks 1 of its weights, lm_head.weight among them"),
        (become_bert, "holds a BertForMaskedLM, which is not a causal language model"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
        (lambda folder: cut_short(folder / "tokenizer.json"), "tokenizer"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line_that_names_it(folder, damage, line) -> None:
    damage(folder)
    with pytest.raises(FoveateError) as error:
        load(folder)
    assert line in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "model.safetensors", "config.json"])
def test_a_manifest_tells_what_is_missing_or_cut_short(folder, name) -> None:
    write_manifest(folder, {})
    load(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    with pytest.raises(FoveateError, match=rf"{name} has [\d,]+ bytes instead of [\d,]+"):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(FoveateError, match=f"{name} is missing"):
        load(folder)


def test_there_must_be_a_model(tmp_path) -> None:
    with pytest.raises(FoveateError, match=r"there is no model at .*nowhere: no such directory"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(FoveateError, match=r"there is no model at .*file: it is a file"):
        load(tmp_path / "file")
    with pytest.raises(FoveateError, match=r"there is no model at .*none\.gguf: no such file"):
        load(tmp_path / "none.gguf")


def test_code_of_a_checkpoint_is_never_run(folder) -> None:
    edit_config(folder, model_type="custom", auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"})
    (folder / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(FoveateError, match="cannot be loaded without code of its own"):
        load(folder)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"dtype": "int8"}, "dtype 'int8' is unknown"),
        ({"device": "cuda"}, "--device cuda: this machine, or this build"),
    ],
)
def test_options_are_checked(folder, given, line, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FoveateError, match=line):
        load(folder, **given)


def test_an_unfinished_run_gives_its_newest_whole_checkpoint(folder) -> None:
    run = folder.parent / "run"
    for step in (5, 10):
        checkpoint = run / f"checkpoint-{step}"
        LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).save_pretrained(checkpoint)
        AutoTokenizer.from_pretrained(folder).save_pretrained(checkpoint)
        write_manifest(checkpoint, {"step": step})
    newest = load(run)[0].state_dict()
    assert all(
        torch.equal(weight, newest[name]) for name, weight in load(run / "checkpoint-10")[0].state_dict().items()
    )
    (run / "checkpoint-10" / "model.safetensors").unlink()
    older = load(run)[0].state_dict()
    assert all(torch.equal(weight, older[name]) for name, weight in load(run / "checkpoint-5")[0].state_dict().items())
    (run / "checkpoint-5" / "config.json").unlink()
    with pytest.raises(
        FoveateError, match=r"no whole checkpoint: checkpoint-10: model.*; checkpoint-5: config.json is"
    ):
        load(run)


def test_a_run_killed_while_its_model_was_put_in_place_gives_its_checkpoint(folder) -> None:
    run = folder.parent / "run"
    checkpoint = run / "checkpoint-3"
    shutil.copytree(folder, checkpoint)
    (checkpoint / "foveate.yaml").write_text("hidden: 16")
    write_manifest(checkpoint, {"step": 3})
    for name in ("config.json", "foveate.yaml"):
        shutil.copy(checkpoint / name, run)
    assert model_folder(run) == checkpoint
    (checkpoint / "manifest.json").unlink()
    with pytest.raises(FoveateError, match=r"checkpoint-3 is damaged: manifest\.json is missing"):
        load(checkpoint)


def test_a_model_without_its_tokenizer(folder) -> None:
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(FoveateError, match=r"the model.s tokenizer .*\(the folder holds no tokenizer\); save one"):
        load(folder)


def test_an_adapter_says_what_it_is(tmp_path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FoveateError, match="is an adapter of a model, not a model"):
        load(tmp_path)
