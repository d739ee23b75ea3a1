"""What is written for any torch model works on ours: weights are ordinary, and every derivative is what it says."""

from __future__ import annotations

import contextlib
import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_model
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from foveate import FoveateForCausalLM, load
from foveate.backends import cpu
from foveate.converting import from_llama
from foveate.errors import FoveateError
from hf.models import FAMILIES, make_ids, make_model


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, trained_run: Path) -> FoveateForCausalLM:
    """As ``load`` gives it: accelerated on a CPU, in fp32."""
    return load(trained_run)[0]


def small_llama() -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return LlamaForCausalLM(LlamaConfig(vocab_size=37, num_key_value_heads=1, initializer_range=0.3, **shape)).eval()


# weights


def test_given_weights_are_what_is_saved(loaded: FoveateForCausalLM, tmp_path: Path) -> None:
    doubled = {name: 2 * value for name, value in loaded.state_dict().items()}
    loaded.save_pretrained(tmp_path, state_dict=doubled)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved
    assert all(torch.equal(value, doubled[name]) for name, value in saved.items())


def test_safetensors_saves_the_model_as_it_is(loaded: FoveateForCausalLM, tmp_path: Path) -> None:
    save_model(loaded, str(tmp_path / "weights"))
    state = loaded.state_dict()
    saved = load_file(tmp_path / "weights")
    assert all(torch.equal(value, state[name]) for name, value in saved.items())
    assert {value.data_ptr() for value in state.values()} == {state[name].data_ptr() for name in saved}


def test_parameters_are_one_vector_and_again_parameters(loaded: FoveateForCausalLM) -> None:
    model, ids = copy.deepcopy(loaded), make_ids(1, 9)
    vector = parameters_to_vector(model.parameters())
    assert vector.numel() == sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        expected = model(ids).logits
        vector_to_parameters(torch.zeros_like(vector), model.parameters())
        assert not model(ids).logits.any()
        vector_to_parameters(vector, model.parameters())
        assert torch.equal(model(ids).logits, expected)


@pytest.mark.filterwarnings("ignore")  # torch.ao is about to move
def test_dynamic_quantisation_finds_every_linear(loaded: FoveateForCausalLM) -> None:
    model, ids = copy.deepcopy(loaded), make_ids(1, 40)
    linears = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    rounded = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    found = [name for name, part in rounded.named_modules() if isinstance(part, torch.ao.nn.quantized.dynamic.Linear)]
    assert found == linears != []
    with torch.no_grad():
        before, after = model(ids).logits, rounded(ids).logits
    assert 0 < float((after - before).square().mean().sqrt()) < 0.05 * float(before.std())


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_are_counted(family: str) -> None:
    model, counted = cpu.accelerate(make_model(family, dtype=torch.float32)), 0

    def count(part: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        nonlocal counted
        counted += 2 * inputs[0].numel() * part.out_features

    for part in model.modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        model(make_ids(1, 48), use_cache=False)
    assert flops.get_flop_counts()["Global"][torch.ops.aten.mm] == counted > 0


# derivatives


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of torch's attention on a CPU, for a Llama too
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_by_example(family: str) -> None:
    model: Any = cpu.accelerate(make_model(family, dtype=torch.float32))
    ids = make_ids(3, 20)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        inputs = {"labels": row[None], "use_cache": False}
        return torch.func.functional_call(model, parameters, (row[None],), inputs).loss

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, ids)
    for index, row in enumerate(ids):
        model.zero_grad()
        model(row[None], labels=row[None], use_cache=False).loss.backward()
        for name, p in model.named_parameters():
            expected = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(got[name][index], expected, atol=1e-5, rtol=1e-4)


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def gradient(model: Any, ids: Tensor, **how: Any) -> tuple[Tensor, ...]:
    scores = model(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
    loss = cross_entropy(scores, ids[:, 1:].flatten())
    return torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True, **how)


@pytest.mark.parametrize("family", FAMILIES)
def test_second_derivatives(family: str) -> None:
    """Products with the Hessian, fp32 and fp64, against differences of gradients; by the kernel that torch derives."""
    model: Any = make_model(family)
    ids, draw, step = make_ids(2, 20), torch.Generator().manual_seed(3), 1e-5
    vectors = [torch.randn(p.shape, generator=draw, dtype=torch.float64) for p in model.parameters()]

    def product(model: Any) -> Tensor:
        to = [vector.to(p) for vector, p in zip(vectors, model.parameters(), strict=True)]
        first = gradient(model, ids, create_graph=True)
        return flat(torch.autograd.grad(first, list(model.parameters()), to, materialize_grads=True))

    def moved(by: float) -> Tensor:
        other = copy.deepcopy(model)
        with torch.no_grad():
            for p, vector in zip(other.parameters(), vectors, strict=True):
                p.add_(vector, alpha=by)
        return flat(gradient(other, ids))

    with sdpa_kernel(SDPBackend.MATH):
        expected = (moved(step) - moved(-step)) / (2 * step)
        double, single = product(model), product(cpu.accelerate(copy.deepcopy(model).float()))
    assert float((double - expected).norm() / expected.norm()) < 1e-4
    assert float((single - double).norm() / double.norm()) < 1e-4


@pytest.mark.parametrize("family", ["hourglass", "llama"])
def test_without_that_kernel_torch_refuses_as_it_does_for_a_llama(family: str) -> None:
    model: Any = small_llama() if family == "llama" else make_model(family)
    first = gradient(model, make_ids(1, 9), create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for aten::_scaled_dot_product_flash_attention"):
        torch.autograd.grad(first[1].sum(), list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_model_hands_gradients_back_through_its_cache(family: str) -> None:
    model = make_model(family).requires_grad_(False)
    first, rest = model.get_input_embeddings()(make_ids(2, 21)), make_ids(2, 8, seed=2)
    found = []
    for split in (False, True):
        embeds = first.clone().requires_grad_()
        if split:
            cache = model.make_cache(2)
            model(inputs_embeds=embeds, past_key_values=cache)
            logits = model(rest, past_key_values=cache).logits
        else:
            logits = model(inputs_embeds=torch.cat((embeds, model.get_input_embeddings()(rest)), 1)).logits[:, 21:]
        logits.square().sum().backward()
        found.append(embeds.grad)
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(found[1], found[0], atol=1e-10 * float(found[0].abs().max()), rtol=0)


# caches of another kind


@pytest.mark.parametrize("filled_in_half", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_is_read_on_in_another_precision(family: str, filled_in_half: bool) -> None:
    model, ids = make_model(family, dtype=torch.float32), make_ids(2, 30)
    half = torch.autocast("cpu", torch.bfloat16)
    with torch.no_grad():
        expected, cache = model(ids).logits, model.make_cache(2)
        for part, rounded in ((ids[:, :17], filled_in_half), (ids[:, 17:], not filled_in_half)):
            with half if rounded else contextlib.nullcontext():
                out = model(part, past_key_values=cache).logits
    error = (out.float() - expected[:, 17:]).square().mean().sqrt()
    assert 0 < error < 0.1 * expected.std()


def written(tuned: Any, ids: Tensor, mask: Tensor, *, cached: bool) -> Tensor:
    """Six tokens more: by generate, or the whole text read again for each."""
    if cached:
        made: Tensor = tuned.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
        return made
    for _ in range(6):
        with torch.no_grad():
            token = tuned(input_ids=ids, attention_mask=mask).logits[:, -1:].argmax(-1)
        ids, mask = torch.cat((ids, token), 1), torch.nn.functional.pad(mask, (0, 1), value=1)
    return ids


@pytest.fixture
def peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("peft")


@pytest.mark.filterwarnings("ignore")
def test_prefix_tuning_of_a_plain_walk_is_that_of_a_llama(peft: Any) -> None:
    """Loss, gradients and a generated text; padded rows give what they give alone, which a Llama's do not."""
    llama = small_llama()
    ids, mask = make_ids(2, 12), torch.ones(2, 12, dtype=torch.long)
    seen = []
    for model in (llama, from_llama(llama)):
        torch.manual_seed(1)
        settings = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
        tuned = peft.get_peft_model(model, settings)
        torch.nn.init.normal_(tuned.prompt_encoder["default"].embedding.weight)
        loss = tuned(input_ids=ids, attention_mask=mask, labels=ids).loss
        loss.backward()
        [learned] = [p for p in tuned.parameters() if p.requires_grad]
        text = written(tuned, ids, mask, cached=model is not llama)
        seen.append((loss.detach(), learned.grad, text))
    expected, got = seen
    assert expected[1].abs().max() > 1e-3
    torch.testing.assert_close(got[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(got[1], expected[1], atol=1e-5, rtol=1e-4)
    assert torch.equal(got[2], expected[2])
    mask[1, :3] = 0
    with torch.no_grad():
        padded, alone = tuned(input_ids=ids, attention_mask=mask).logits[1:, 3:], tuned(input_ids=ids[1:, 3:]).logits
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "plain"])
def test_prefix_tuning_of_other_walks_is_refused_and_prompt_tuning_done(peft: Any, family: str) -> None:
    ids, task = make_ids(2, 12), {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    tuned = peft.get_peft_model(make_model(family), peft.PrefixTuningConfig(**task))
    with pytest.raises(FoveateError, match=r"full attention on level 1 .* instead of prefix tuning prompt tuning"):
        tuned(input_ids=ids, labels=ids)
    tuned = peft.get_peft_model(make_model(family, dtype=torch.float32), peft.PromptTuningConfig(**task))
    tuned(input_ids=ids, labels=ids).loss.backward()
    [learned] = [p for p in tuned.parameters() if p.requires_grad]
    assert learned.grad.abs().max() > 0
    mask = torch.ones_like(ids)
    assert torch.equal(written(tuned, ids, mask, cached=True), written(tuned, ids, mask, cached=False))


def test_a_cache_of_other_shapes_is_refused() -> None:
    llama = small_llama()
    with torch.no_grad():
        cache = llama(make_ids(1, 8)).past_key_values
        rest = from_llama(llama)(make_ids(1, 3, seed=2), past_key_values=cache).logits
        expected = llama(torch.cat((make_ids(1, 8), make_ids(1, 3, seed=2)), 1)).logits[:, 8:]
        torch.testing.assert_close(rest, expected, atol=1e-4, rtol=1e-4)
        assert cache.get_seq_length() == 8
    with pytest.raises(FoveateError, match=r"2 layers of \(1, 1, 8, 8\); this model's are 2 of \(1, 2, 8, 8\)"):
        make_model("plain")(make_ids(1, 3), past_key_values=cache)
