"""What a configuration and the arguments of a call say reaches the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.errors import FoveateError
from foveate.hf.classification import FoveateForSequenceClassification
from foveate.hf.register import register
from hf.models import FAMILIES, make_ids, make_model


@pytest.mark.parametrize("name", ["vocab_size", "rms_norm_eps", "initializer_range", "hidden_act"])
def test_what_is_not_said_is_as_in_a_llama(name: str) -> None:
    assert getattr(FoveateConfig(), name, "silu") == getattr(LlamaConfig(), name)


@pytest.mark.parametrize("said", [{"rope_theta": 100.0}, {"rms_norm_eps": 0.1}])
def test_numbers_of_a_configuration_change_what_is_computed(said: dict[str, float]) -> None:
    plain, other = make_model("hourglass"), make_model("hourglass", **said)
    other.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert (plain(make_ids(1, 20)).logits - other(make_ids(1, 20)).logits).abs().max() > 1e-3


def test_weights_start_as_spread_as_is_said() -> None:
    torch.manual_seed(0)
    config = FoveateConfig(walk="1@1", vocab_size=500, hidden_size=64, num_attention_heads=2, initializer_range=0.5)
    assert FoveateForCausalLM(config).model.embed_tokens.weight.std().item() == pytest.approx(0.5, rel=0.05)


def test_another_label_may_be_ignored_also_between_documents() -> None:
    model, ids = make_model("plain"), make_ids(1, 9)
    packed = {"seq_idx": torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1]]), "use_cache": False}
    labels = ids.clone()
    labels[0, 2] = -7
    with torch.no_grad():
        found = model(ids, labels=labels, ignore_index=-7, **packed).loss
        expected = model(ids, labels=labels.masked_fill(labels == -7, -100), **packed).loss
    assert torch.equal(found, expected)


def test_only_the_main_process_writes_the_file_of_remote_code(tmp_path: Path) -> None:
    model = make_model("plain")
    for is_main in (True, False):
        model.save_pretrained(tmp_path / str(is_main), is_main_process=is_main)
    assert [len(list((tmp_path / str(is_main)).glob("*.py"))) for is_main in (True, False)] == [1, 0]


def test_registering_again_is_no_mistake() -> None:
    register()


def test_a_class_is_read_off_the_last_token_of_what_a_cache_goes_on_to() -> None:
    shape = {"vocab_size": 37, "hidden_size": 16, "num_attention_heads": 2, "num_labels": 3}
    torch.manual_seed(0)
    model = FoveateForSequenceClassification(FoveateConfig(**FAMILIES["hourglass"], **shape)).eval()
    ids, mask = make_ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[0, 7:] = 0
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).logits
        cache = model(ids[:, :6], attention_mask=mask[:, :6], use_cache=True).past_key_values
        found = model(ids[:, 6:], attention_mask=mask, past_key_values=cache).logits
    torch.testing.assert_close(found, expected)


def test_several_answers_to_several_read_documents() -> None:
    model = make_model("hourglass")
    documents, ids = make_ids(2, 20), make_ids(2, 24)
    ids[:, :20] = documents
    how = {"num_beams": 2, "num_return_sequences": 2, "max_new_tokens": 6, "do_sample": False}
    cache = model.read(documents, model.make_cache(2))
    assert torch.equal(model.generate(ids, past_key_values=cache, **how), model.generate(ids, **how))


def test_a_number_beyond_all_floats_is_a_line() -> None:
    with pytest.raises(FoveateError, match="rope_theta"):
        FoveateConfig(rope_theta=10**400)
