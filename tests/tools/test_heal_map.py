"""A coarse run of a pretrained model is what it says it is, where that is known."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
from heal_map import coarse, draw, run

sys.path.pop(0)


def body(seed: int = 0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=19, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2
    )
    return LlamaForCausalLM(config).double().eval().requires_grad_(False).model


def test_units_of_one_token_are_the_source():
    model, x_BTD = body(), torch.randn(2, 7, 16, dtype=torch.float64)
    for pooling in ("last", "mean"):
        torch.testing.assert_close(coarse(model, x_BTD, 0, 2, 1, pooling, 1.0), run(model, x_BTD, 0, 2))


def test_layers_that_add_nothing_leave_the_stream_alone():
    model, x_BTD = body(), torch.randn(2, 7, 16, dtype=torch.float64)
    for layer in model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    assert torch.equal(coarse(model, x_BTD, 0, 2, 4, "mean", 1.0), x_BTD)


def test_a_unit_is_added_from_the_token_that_completes_it():
    model, x_BTD = body(), torch.randn(1, 8, 16, dtype=torch.float64)
    before = coarse(model, x_BTD, 0, 2, 4, "mean", 1.0)
    assert torch.equal(before[:, :3], x_BTD[:, :3])
    x_BTD[:, 3] += 1
    after = coarse(model, x_BTD, 0, 2, 4, "mean", 1.0)
    assert torch.equal(after[:, :3], before[:, :3])
    assert (after - before)[:, 4:7].abs().max() > 1e-6


def test_the_figure_has_a_cell_for_each_run(tmp_path):
    draw(
        {"left out": {(0, 0): 1.25, (0, 1): 12.5, (1, 1): -0.5}, "on units of 4 tokens": {(0, 1): 3.0}},
        tmp_path / "f.svg",
    )
    text = (tmp_path / "f.svg").read_text()
    assert [cost in text for cost in ("1.2<", "12.5<", "-0.5<", "3.0<")] == [True] * 4
