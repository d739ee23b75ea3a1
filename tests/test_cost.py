"""What ``foveate.cost`` predicts against what the model really has, keeps and computes."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.bench.memory import measure_training_memory
from foveate.cost import Cost, Load, predict
from foveate.errors import FoveateError
from foveate.spec import Attention, HierarchySpec

MODELS = {
    "plain": {"walk": "3@1"},
    "grouped queries": {"walk": "2@1", "num_key_value_heads": 2},
    "untied": {"walk": "2@1", "tie_word_embeddings": False},
    "hourglass": {"walk": "2@1 4@4 2@1"},
    "nested": {"walk": "1@1 1@4 2@16 1@4 1@1"},
    "returning": {"walk": "1@1 1@4 1@1 2@4 1@1"},
    "top-down": {"walk": "0@1 3@16 2@4 2@1"},
    "bottom-up": {"walk": "2@1 2@4 3@16 0@1"},
    "window": {"walk": "3@1:window32"},
    "windows around a middle": {"walk": "1@1:window16 4@4 1@1:window16"},
    "window nearly as long": {"walk": "2@1:window249"},
    "sinks": {"walk": "3@1:sink32"},
    "sinks nearly as long": {"walk": "2@1:sink200"},
    "fovea": {"walk": "3@1:fovea16,groups=4"},
    "foveas that keep": {"walk": "1@1:fovea16,groups=4,tail=keep 2@4:fovea8,scales=2/8,groups=4 1@1:fovea16,groups=4"},
    "mean and repeat": {"walk": "2@1 4@4 2@1", "pooling": "mean", "expanding": "repeat"},
    "attention": {"walk": "2@1 4@4 2@1", "pooling": "attention", "expanding": "attention"},
    "wide middle": {"walk": "2@1 4@4 2@1", "levels": {"4": {"width": 192, "heads": 6}}},
    "wide middle, mean": {"walk": "1@1 2@3 1@1", "levels": {"3": {"width": 192}}, "pooling": "mean"},
    "wide middle, attention": {
        "walk": "2@1 4@4 2@1",
        "levels": {"4": {"width": 192, "heads": 6}},
        "pooling": "attention",
        "expanding": "attention",
    },
}
VOCAB, CONTEXT, BATCH = 512, 250, 2  # 250 divides by none of the strides


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request) -> FoveateForCausalLM:
    torch.manual_seed(0)
    return FoveateForCausalLM(FoveateConfig(vocab_size=VOCAB, hidden_size=128, **request.param))


def cost_of(model: FoveateForCausalLM, *, context: int = CONTEXT, dtype: str = "float32") -> Cost:
    tied = model.config.tie_word_embeddings
    return predict(model.config.spec, Load(context=context, vocab_size=VOCAB, batch=BATCH, dtype=dtype, tied=tied))


def tokens(context: int = CONTEXT) -> torch.Tensor:
    return torch.randint(VOCAB, (BATCH, context))


def test_params_are_those_of_the_model(model) -> None:
    assert cost_of(model).total.params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_backward_bytes_are_those_autograd_keeps(model, dtype) -> None:
    memory = measure_training_memory(model, name="model", batch=BATCH, context=CONTEXT, bf16=dtype == "bfloat16")
    # rotary tables, which do not grow with the batch, are left out of the prediction
    assert memory.predicted_kept_bytes == pytest.approx(memory.kept_bytes, rel=0.05)


@pytest.mark.parametrize("context", [64, 250])
def test_cache_bytes_are_those_the_cache_holds(model, context) -> None:
    cache = model.make_cache(BATCH)
    with torch.no_grad():
        model.eval()(input_ids=tokens(context), past_key_values=cache, use_cache=True)
    used = [buffer.used(context // buffer.stride) for buffer in cache.steps.buffers]
    held = sum(data.nbytes for data in used if data is not None)
    assert cost_of(model, context=context).total.cache_bytes == held
    assert cost_of(model, context=context, dtype="float16").total.cache_bytes == held // 2


def test_training_flops_are_those_of_the_products_run(model) -> None:
    def attention(q, k, v, *args, out_val=None, **options) -> int:
        B, H, S, d = q
        L = k[2]
        # causal, a band of half the keys, all complete units, or (about) what a fovea's block sees
        pairs = S * (S + 1) // 2 if S == L else S * L // 2
        return 4 * B * H * d * pairs

    aten = torch.ops.aten
    counted = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *a, **o: 2 * attention(q, k, v),
    }
    ids = tokens()
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    predicted = cost_of(model).total.train_flops_per_token * BATCH * CONTEXT
    tolerance = 0.03 if "fovea" in model.config.walk else 0.01
    assert predicted == pytest.approx(counter.get_total_flops(), rel=tolerance)


def test_decoding_costs_what_the_clock_says() -> None:
    load = Load(context=4096, vocab_size=VOCAB)
    plain = predict(HierarchySpec.parse("1@1"), load)
    coarse = predict(HierarchySpec.parse("0@1 1@16 0@1", pooling="linear", expanding="linear"), load)
    assert plain.levels[0].runs_per_token == 1
    assert coarse.levels[1].runs_per_token == 1 / 16
    assert coarse.layer_runs_per_token == 1 / 16
    D, F = 256, 704
    products, keys = 2 * (4 * D * D + 3 * D * F), 4 * D
    moves = 2 * 2 * 16 * D * D / 16
    assert plain.levels[0].part.flops_per_token == products + keys * 4096
    assert coarse.levels[1].part.flops_per_token == (products + keys * 256) / 16 + moves


def test_a_context_without_a_single_unit_costs_nothing_coarse() -> None:
    cost = predict(HierarchySpec.parse("1@1 1@64 1@1"), Load(context=63, vocab_size=VOCAB))
    coarse = cost.levels[1].part
    assert coarse.train_flops_per_token == coarse.backward_bytes == 0
    assert coarse.cache_bytes == 64 * 256 * 4, "the pool's unfinished group, nothing else"
    assert coarse.flops_per_token > 0


@pytest.mark.parametrize(
    "text", ["full", "window7", "sink3", "fovea8,groups=4,scales=4/8", "fovea8,groups=4,tail=keep"]
)
def test_mean_keys_are_the_mean_of_the_keys(text) -> None:
    attention = Attention.parse(text)
    for units in (1, 6, 7, 8, 100, 301):
        mean = sum(len(attention.seen(t)) for t in range(units)) / units
        assert attention.mean_keys_read(units) == pytest.approx(mean)
    assert attention.mean_keys_read(0) == 0


def test_a_window_and_a_fovea_stop_growing_with_the_context() -> None:
    million = 1 << 20
    assert Attention.parse("window128").keys_read(million) == 128
    keep = Attention.parse("fovea64,tail=keep")
    assert keep.keys_read(128) == 128
    assert million / 64 < keep.keys_read(million) < million / 64 + 2 * 64 + 2 * 16
    log = Attention.parse("fovea64")
    assert log.keys_read(million) <= 2 * 64 + 16 * 10
    assert abs(log.keys_read(4 * million) - log.keys_read(million)) <= 16


def test_json_adds_up() -> None:
    spec = HierarchySpec.parse("2@1 8@4 2@1", width=128, levels={4: {"width": 192, "heads": 6}})
    data = json.loads(json.dumps(predict(spec, Load(context=512, vocab_size=VOCAB)).to_json()))
    assert [level["layers"] for level in data["levels"]] == [4, 8]
    assert [level["stride"] for level in data["levels"]] == [1, 4]
    assert [level["width"] for level in data["levels"]] == [128, 192]
    assert [level["runs_per_token"] for level in data["levels"]] == [1, 0.25]
    assert data["context"] == 512
    assert data["layers"] == 12
    assert data["layer_runs_per_token"] == 6
    for key in asdict(predict(spec, Load(context=512, vocab_size=VOCAB)).ends):
        parts = [*data["levels"], data["embedding_and_head"]]
        assert data[key] == pytest.approx(sum(part[key] for part in parts)), key


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"context": 0}, "context is 0; it must be a whole number from 1 to 1073741824"),
        ({"batch": -1}, "batch is -1; it must be a whole number from 1 to 1073741824"),
        ({"vocab_size": 2.5}, "vocab_size is 2.5; it must be a whole number from 1 to 1073741824"),
        ({"dtype": "int4"}, "dtype is 'int4'; choose one of float32, bfloat16, float16"),
    ],
)
def test_a_load_that_makes_no_sense(wrong, message) -> None:
    with pytest.raises(FoveateError) as error:
        Load(**({"context": 8, "vocab_size": 8} | wrong))
    assert str(error.value) == message
