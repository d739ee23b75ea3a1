"""Models by name, from a hub that is a folder here."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from foveate.data import hub
from foveate.data.tokenizer import make_tokenizer
from foveate.errors import FoveateError
from foveate.loading import load


@pytest.fixture
def snapshots(tmp_path, monkeypatch):
    """A hub with the model ``ours/tiny``, which notes what it is asked for."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=257, **shape)).save_pretrained(tmp_path / "ours" / "tiny")
    make_tokenizer("bytes", list).save_pretrained(tmp_path / "ours" / "tiny")
    asked = []

    def download(name, **options):
        asked.append(options)
        if not (tmp_path / name).exists():
            raise OSError(f"404: no {name}\nsee the manual")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: True)
    monkeypatch.chdir(tmp_path.parent)
    return asked


def test_a_name_on_the_hub(snapshots) -> None:
    model, tokenizer = load("ours/tiny")
    assert (type(model), tokenizer("a")["input_ids"]) == (LlamaForCausalLM, [256, 97])
    (asked,) = snapshots
    assert asked["local_files_only"] is False
    assert not {"*.bin", "*.py", "*"} & set(asked["allow_patterns"])


def test_what_lies_here_is_not_asked_for(snapshots, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    load("ours/tiny")
    assert snapshots == []


def test_a_name_that_is_nowhere(snapshots, monkeypatch) -> None:
    with pytest.raises(FoveateError, match=r"there is no model at ours/huge: no such directory, 404: no ours/huge$"):
        load("ours/huge")
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: False)
    with pytest.raises(FoveateError, match="no such directory, and the hub cannot be reached"):
        load("ours/huge")
    assert snapshots[-1]["local_files_only"] is True


def test_weights_that_are_no_safetensors(snapshots, tmp_path) -> None:
    shutil.move(tmp_path / "ours" / "tiny" / "model.safetensors", tmp_path / "pytorch_model.bin")
    with pytest.raises(FoveateError, match="ours/tiny on the hub has no weights as safetensors"):
        load("ours/tiny")
