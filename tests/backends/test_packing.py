import copy
from typing import Any

import pytest
import torch

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.backends import cpu
from foveate.backends.cpu.packing import pack
from foveate.errors import FoveateError

WALKS = ["3@1", "1@1:window8 1@4 1@1:window8", "2@1:fovea8,groups=4", "0@1 1@16 1@4 1@1"]


def small(walk: str, dtype: torch.dtype = torch.float32, **settings: Any) -> FoveateForCausalLM:
    torch.manual_seed(0)
    config = FoveateConfig(
        walk=walk, vocab_size=96, hidden_size=64, num_attention_heads=2, max_position_embeddings=128, **settings
    )
    model = FoveateForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.to(dtype)


def decode(model: FoveateForCausalLM, prompt: int = 21, rows: int = 2) -> torch.Tensor:
    ids = torch.randint(96, (rows, prompt + 20), generator=torch.Generator().manual_seed(1))
    cache = model.make_cache(rows)
    with torch.inference_mode():
        parts = [model(ids[:, :prompt], past_key_values=cache, use_cache=True).logits]
        parts += [model(column, past_key_values=cache, use_cache=True).logits for column in ids[:, prompt:].split(1, 1)]
    return torch.cat(parts, 1).float()


@pytest.mark.parametrize("walk", WALKS)
def test_an_accelerated_model_is_the_same_model(walk: str, tmp_path) -> None:
    model = small(walk)
    before, weights = decode(model), {name: value.clone() for name, value in model.state_dict().items()}
    cpu.accelerate(model)
    torch.testing.assert_close(decode(model), before, rtol=1e-5, atol=1e-5)
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    again = FoveateForCausalLM.from_pretrained(tmp_path)
    for name, value in again.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_training_goes_on_with_an_accelerated_model() -> None:
    plain, fast = small("1@1 1@4 1@1"), small("1@1 1@4 1@1")
    cpu.accelerate(fast)
    ids = torch.randint(96, (2, 33))
    for model in (plain, fast):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("walk", WALKS)
def test_packed_bf16_decodes_alike(walk: str) -> None:
    model = small(walk, torch.bfloat16)
    packed = copy.deepcopy(model)
    pack(packed)
    torch.testing.assert_close(decode(packed), decode(model), rtol=0.05, atol=0.15)


@pytest.mark.parametrize("expanding", ["linear", "attention"])
@pytest.mark.parametrize("pooling", ["linear", "attention"])
def test_int8_is_the_rounded_model(pooling: str, expanding: str) -> None:
    walk = "1@1 1@4 1@1"
    model = small(walk, torch.bfloat16, pooling=pooling, expanding=expanding, biases=["qkv"])
    packed, rounded = copy.deepcopy(model), copy.deepcopy(model)
    pack(packed, "int8")
    with torch.no_grad():
        for layer in (module for module in rounded.modules() if isinstance(module, torch.nn.Linear)):
            scale = (layer.weight.float().abs().amax(1, keepdim=True) / 127).bfloat16().float()
            layer.weight = torch.nn.Parameter(((layer.weight.float() / scale).round() * scale).bfloat16())
    assert packed.model.decoder.steps[0].layers[0].qkv_proj._bias_N is not None
    for rows in (1, 20):  # few rows and many take different ways
        torch.testing.assert_close(decode(packed, rows=rows), decode(rounded, rows=rows), rtol=0.05, atol=0.2)
    assert packed.lm_head.nbytes < 0.6 * model.lm_head.weight.nbytes


def test_packed_weights_are_for_decoding_only() -> None:
    model = small("2@1", torch.bfloat16)
    pack(model)
    with pytest.raises(FoveateError, match="cannot be saved"):
        model.state_dict()
    with pytest.raises(FoveateError, match="cannot be moved"):
        model.float()


@pytest.mark.parametrize(
    ("dtype", "weights", "message"), [("float32", "int8", "float32 on cpu"), ("bfloat16", "int3", "'int3'")]
)
def test_weights_that_cannot_be(dtype: str, weights: str, message: str) -> None:
    with pytest.raises(FoveateError, match=message):
        pack(small("1@1", getattr(torch, dtype)), weights)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("walk", WALKS)
def test_packed_fp32_decodes_alike(walk: str, rows: int, monkeypatch) -> None:
    monkeypatch.setattr("foveate.backends.cpu.packing.SMALL", 64 * 65)  # of a layer, the output projection
    model = small(walk, torch.float32)
    packed = copy.deepcopy(model)
    pack(packed)
    torch.testing.assert_close(decode(packed, rows=rows), decode(model, rows=rows), rtol=1e-4, atol=1e-5)
    assert packed.lm_head.nbytes == model.lm_head.weight.nbytes
    small_one = packed.model.decoder.steps[-1].layers[-1].o_proj
    assert small_one.nbytes == 2 * 4 * 64 * 64
