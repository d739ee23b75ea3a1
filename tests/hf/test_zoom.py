"""``foveate.zoom``: models of transformers that zoom, against themselves as they were and without a cache."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DynamicCache,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen3Config,
    T5Config,
)

import foveate
from foveate.errors import FoveateError

TREE = {"near": 5, "sinks": 2, "block": 16, "groups": (8, 4, 2), "keep": (2, 3, 3), "opened": 3}
ALL = {**TREE, "keep": (None, None, None), "opened": 1000}
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
FAMILIES = {
    "llama": LlamaConfig(**SHAPE),
    "qwen": Qwen3Config(**SHAPE, head_dim=8),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "gemma": Gemma3TextConfig(
        **SHAPE, head_dim=8, sliding_window=7, layer_types=["sliding_attention", "full_attention"]
    ),
    "neox": GPTNeoXConfig(**{**SHAPE, "num_key_value_heads": 4}),
    "moe": MixtralConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2),
}
CLOSE = {**dict.fromkeys(FAMILIES, 1e-5), "moe": 1e-3}  # norms are in single precision everywhere
# the name that transformers 5.23 knows, and 5.24 warns of
pytestmark = pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")
WARM = pytest.mark.filterwarnings("ignore")  # transformers' own about tiny models


def make(family: str = "llama", **changes):
    torch.manual_seed(0)
    config = FAMILIES[family]
    if changes:
        config = type(config)(**{**config.to_dict(), **changes})
    dtype = torch.float32 if family == "moe" else torch.float64  # its grouped products know no double precision
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def some_tokens(rows: int = 2, columns: int = 70, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 64, (rows, columns), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_is_the_model_itself_where_everything_is_opened_and_after(family) -> None:
    model, x = make(family), some_tokens()
    before = model(x).logits
    with foveate.zoom(model, **ALL) as zoomed:
        torch.testing.assert_close(zoomed(x).logits, before, rtol=0, atol=CLOSE[family])
    with foveate.zoom(model, **TREE):
        assert (model(x).logits - before).abs().max() > 1e-2
    assert torch.equal(model(x).logits, before)
    assert type(model(x).past_key_values) is DynamicCache


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_cache_in_any_pieces_equals_none(family) -> None:
    model, x = make(family), some_tokens()
    zoomed = foveate.zoom(model, **TREE)
    whole = model(x, use_cache=False).logits
    cache = zoomed.cache()
    outs = [model(part, past_key_values=cache).logits for part in x.split([30, 1, 1, 25, 13], 1)]
    torch.testing.assert_close(torch.cat(outs, 1), whole, rtol=0, atol=CLOSE[family])
    assert cache.get_seq_length() == 70


MODES = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "chunked prefill": {"prefill_chunk_size": 16},
}


@WARM
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_generate_writes_what_no_cache_writes(mode) -> None:
    model = make()
    foveate.zoom(model, **TREE)
    x = some_tokens(1 if mode == "prompt lookup" else 2)
    settings = {"max_new_tokens": 12, "do_sample": False, **MODES[mode]}
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        if not use_cache:
            settings = {
                k: v for k, v in settings.items() if k not in ("prompt_lookup_num_tokens", "prefill_chunk_size")
            }
        texts.append(model.generate(x, attention_mask=torch.ones_like(x), use_cache=use_cache, **settings))
    assert torch.equal(*texts)
    assert texts[0].shape[1] == 82


@WARM
def test_assisted_generation_writes_what_the_model_writes_alone() -> None:
    model, assistant = make(), make(num_hidden_layers=1)
    foveate.zoom(model, **TREE)
    foveate.zoom(assistant, **TREE)
    x = some_tokens(1)
    mask = torch.ones_like(x)
    alone = model.generate(x, attention_mask=mask, max_new_tokens=12, do_sample=False)
    helped = model.generate(x, attention_mask=mask, max_new_tokens=12, do_sample=False, assistant_model=assistant)
    assert torch.equal(alone, helped)


@pytest.mark.parametrize("family", ["llama", "gemma"])
@WARM
def test_a_padded_row_writes_what_it_writes_alone(family) -> None:
    model = make(family)
    foveate.zoom(model, **TREE, dense=[0])
    texts = [some_tokens(1, n, seed=n) for n in (70, 50, 33)]
    x, mask = torch.zeros(2, 3, 70, dtype=torch.long)
    for row, text in enumerate(texts):
        x[row, 70 - text.shape[1] :], mask[row, 70 - text.shape[1] :] = text[0], 1
    together = model.generate(x, attention_mask=mask, max_new_tokens=12, do_sample=False)
    for row, text in enumerate(texts):
        alone = model.generate(text, attention_mask=torch.ones_like(text), max_new_tokens=12, do_sample=False)
        assert torch.equal(together[row, 70:], alone[0, text.shape[1] :])
    uncached = model.generate(x, attention_mask=mask, max_new_tokens=12, do_sample=False, use_cache=False)
    assert torch.equal(uncached, together)


@torch.no_grad()
def test_a_text_is_read_once_and_asked_later(tmp_path) -> None:
    model, x = make("gemma"), some_tokens(2, 80)
    zoomed = foveate.zoom(model, **TREE)
    whole = model(x).logits
    cache = zoomed.cache()
    model(x[:, :60], past_key_values=cache)
    cache.save(tmp_path / "text.safetensors", model)
    for _ in range(2):
        again = foveate.ZoomCache.load(tmp_path / "text.safetensors", model)
        out = model(x[:, 60:], past_key_values=again).logits
        torch.testing.assert_close(out, whole[:, 60:], rtol=0, atol=1e-5)
    zoomed.undo()
    foveate.zoom(model, **{**TREE, "opened": 4})
    with pytest.raises(FoveateError, match="read with other settings of zoom"):
        foveate.ZoomCache.load(tmp_path / "text.safetensors", model)
    other = make("gemma", initializer_range=0.2)
    foveate.zoom(other, **TREE)
    with pytest.raises(FoveateError, match="read by another model"):
        foveate.ZoomCache.load(tmp_path / "text.safetensors", other)
    (tmp_path / "bad").write_bytes(b"nothing")
    with pytest.raises(FoveateError, match="is not a saved zoom cache"):
        foveate.ZoomCache.load(tmp_path / "bad", model)
    with pytest.raises(FoveateError, match="does not exist"):
        foveate.ZoomCache.load(tmp_path / "none", model)


def test_training_has_gradients_of_every_weight() -> None:
    model, x = make().train(), some_tokens(2, 60)
    foveate.zoom(model, **TREE)
    loss = model(x, labels=x).loss
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())
    mask = torch.ones_like(x)
    mask[0, :9] = 0
    alone = model(x[:1, 9:]).logits
    torch.testing.assert_close(model(x, attention_mask=mask).logits[:1, 9:], alone, rtol=0, atol=1e-5)


def test_a_call_with_gradients_can_go_on_with_its_cache() -> None:
    model, x = make(), some_tokens()
    foveate.zoom(model, **TREE)
    whole = model(x).logits
    out = model(x[:, :50])
    rest = model(x[:, 50:], past_key_values=out.past_key_values).logits
    torch.testing.assert_close(rest, whole[:, 50:], rtol=0, atol=1e-5)


class _Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor) and 0 not in tensor.stride():  # an expanded view holds nothing
                self.elements = max(self.elements, tensor.numel())
        return out


@torch.no_grad()
def test_prefill_never_makes_a_matrix_of_all_tokens() -> None:
    model = make()
    tree = {"near": 16, "block": 64, "groups": (16, 4), "keep": (4, 4), "opened": 4, "thumbnails": 4}
    largest = []
    with foveate.zoom(model, **tree, dense=[0]):
        for tokens in (1024, 2048):
            with _Largest() as seen:
                model(some_tokens(1, tokens))
            largest.append(seen.elements)
    assert largest[1] <= 2.1 * largest[0]
    assert largest[1] < 2048 * 2048


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (GPT2Config(n_embd=32, n_head=2, n_layer=1, vocab_size=64), "has no rotary positions"),
        (BloomConfig(hidden_size=32, n_head=2, n_layer=1, vocab_size=64), "has no rotary positions"),
        (MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=64), "has no rotary positions"),
        (Gemma2Config(**SHAPE, head_dim=8), "does not do soft-capped logits"),
    ],
    ids=["learned positions", "ALiBi", "recurrent", "soft-capped"],
)
def test_models_that_zoom_cannot_serve_are_refused(config, line) -> None:
    model = AutoModelForCausalLM.from_config(config).eval()
    before = model.config._attn_implementation
    with pytest.raises(FoveateError, match=line):
        foveate.zoom(model)
    assert model.config._attn_implementation == before


def test_models_of_other_kinds_are_refused() -> None:
    from transformers import DeepseekV3Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=64))
    with pytest.raises(FoveateError, match="has cross attention"):
        foveate.zoom(t5)
    latent = DeepseekV3Config(
        **{**SHAPE, "num_key_value_heads": 4}, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1
    )
    with pytest.raises(FoveateError, match="latent attention"):
        foveate.zoom(AutoModelForCausalLM.from_config(latent))
    with pytest.raises(FoveateError, match="not a Linear"):
        foveate.zoom(torch.nn.Linear(1, 1))


def test_what_is_not_done_is_refused_in_a_line() -> None:
    model, x = make(), some_tokens()
    with pytest.raises(FoveateError, match="unexpected keyword argument 'window'"):
        foveate.zoom(model, window=3)
    with pytest.raises(FoveateError, match="names no layer of 0 to 1"):
        foveate.zoom(model, dense=[2])
    with pytest.raises(FoveateError, match="1 plans for a model of 2 layers"):
        foveate.zoom(model, [None])
    with pytest.raises(FoveateError, match="near belongs into the plan"):
        foveate.zoom(model, foveate.ZoomPlan(), near=3)
    zoomed = foveate.zoom(model, **TREE)
    with pytest.raises(FoveateError, match="zooms already"):
        foveate.zoom(model)
    with torch.no_grad():
        with pytest.raises(FoveateError, match="output_attentions=True"):
            model(x, output_attentions=True)
        with pytest.raises(FoveateError, match="no packed documents"):
            model(x, position_ids=torch.arange(35).repeat(2)[None], use_cache=False)
        with pytest.raises(FoveateError, match=r"shape \(2, 1, 70, 70\)"):
            model(x, attention_mask=torch.ones(2, 1, 70, 70, dtype=torch.bool))
        with pytest.raises(FoveateError, match="cache_implementation='static'"):
            model.generate(x, max_new_tokens=2, cache_implementation="static")
    zoomed.undo()
    with pytest.raises(FoveateError, match="does not zoom"):
        foveate.ZoomCache.load("x", model)


@torch.no_grad()
def test_rows_of_a_cache_can_be_taken() -> None:
    model, x = make(), some_tokens()
    zoomed = foveate.zoom(model, **TREE, dense=[0])
    whole = model(x).logits
    cache = zoomed.cache()
    model(x[:, :60], past_key_values=cache)
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([3, 0]))
    out = model(x[[1, 0], 60:], past_key_values=cache).logits
    torch.testing.assert_close(out, whole[[1, 0], 60:], rtol=0, atol=1e-5)
    assert cache.nbytes > 0
    cache.reset()
    torch.testing.assert_close(model(x, past_key_values=cache).logits, whole, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_cache_off_the_device_is_the_same_and_one_of_8_bits_is_close(tmp_path) -> None:
    model, x = make(), some_tokens()
    caches, logits = [], []
    for keeping in ({}, {"offload": "disk"}, {"offload": "cpu", "bits": 8}):
        with foveate.zoom(model, **TREE, **keeping) as zoomed:
            cache = foveate.hf.zoom_cache.cache_of(zoomed)
            zoomed(x[:, :50], past_key_values=cache)
            cache.save(tmp_path / "read.zoom", zoomed)
            cache = foveate.ZoomCache.load(tmp_path / "read.zoom", zoomed)
            logits.append(zoomed(x[:, 50:], past_key_values=cache).logits)
            caches.append(cache)
    assert torch.equal(logits[1], logits[0])
    assert 0 < (logits[2] - logits[0]).norm() / logits[0].norm() < 0.1
    assert caches[1].device_nbytes < caches[1].nbytes == caches[0].nbytes == caches[0].device_nbytes
    assert caches[2].nbytes < caches[0].nbytes
    with pytest.raises(FoveateError, match="offload='gpu' is unknown"):
        foveate.zoom(model, offload="gpu")
