"""Budgets by head: that they go where they are worth most, that their mean holds, and that their file comes back."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import foveate
from foveate.errors import FoveateError
from foveate.hf.zoom_budget import STEPS, allot, calibrate, load_plans, save_plans

PLAN = foveate.ZoomPlan(near=5, sinks=2, block=16, groups=(8, 4, 2), keep=(None, None, None), opened=8, thumbnails=2)


def test_budgets_go_where_a_group_lowers_the_error_most() -> None:
    needy = [9.0 / (1 + n) for n in STEPS]
    idle = [1e-3] * len(STEPS)
    late = [1.0 if n < 16 else 0.0 for n in STEPS]  # nothing until 16, then all
    errors = torch.tensor([[needy, idle], [late, idle]])
    budgets = allot(errors, 8)
    assert budgets[0][1] == budgets[1][1] == 0
    assert budgets[1][0] == 16
    assert budgets[0][0] == 16
    assert sum(map(sum, budgets)) <= 8 * 4
    assert allot(errors, 0) == [[0, 0], [0, 0]]


def test_a_calibrated_model_opens_as_much_and_its_plans_come_back(tmp_path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval()
    text = torch.randint(0, 64, (1, 200))
    before = model(text).logits
    with torch.no_grad():  # heads of layer 1 with keys of 0 see everything alike: nothing is gained by opening
        model.model.layers[1].self_attn.k_proj.weight.zero_()
    plans = calibrate(model, [text], PLAN)
    assert plans[1].opened == (0, 0)
    assert 0 < sum(plans[0].opened) <= 8 * 4
    assert model.config._attn_implementation != "foveate_zoom"
    save_plans(tmp_path / "plans.json", plans)
    assert load_plans(tmp_path / "plans.json") == plans
    with foveate.zoom(model, load_plans(tmp_path / "plans.json")):
        assert model(text).logits.shape == before.shape
    with pytest.raises(FoveateError, match="needs texts of 151 tokens or more; got \\[100\\]"):
        calibrate(model, [text[:, :100]], PLAN)
    with pytest.raises(FoveateError, match=r"not with opened=\(0, 0\)"):
        calibrate(model, [text], plans[1])
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(FoveateError, match="holds no plans of zoom"):
        load_plans(tmp_path / "bad.json")
    with pytest.raises(FoveateError, match="does not exist"):
        load_plans(tmp_path / "none.json")
