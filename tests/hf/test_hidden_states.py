"""Hidden states: one entry per level and layer, with a cache and without."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate import FoveateForCausalLM
from foveate.hf.private import CACHE
from hf.models import make_ids, make_model, pad_left


def test_hidden_states_of_every_level(model: FoveateForCausalLM) -> None:
    config = model.config
    strides = config.hidden_state_strides
    ids = make_ids(2, 37)
    with torch.no_grad():
        whole = model(ids, output_hidden_states=True)
        states = whole.hidden_states
        assert [tuple(state.shape[:2]) for state in states] == [(2, 37 // stride) for stride in strides]
        assert torch.equal(states[0], model.get_input_embeddings()(ids))
        torch.testing.assert_close(model.lm_head(states[-1]), whole.logits, atol=1e-12, rtol=0)
        # in parts, with a cache: a unit is in the call that completes it
        cache = model.make_cache(2)
        parts = [
            model(part, past_key_values=cache, output_hidden_states=True).hidden_states
            for part in ids.split([3, 1, 20, 13], 1)
        ]
        for state, *pieces in zip(states, *parts, strict=True):
            torch.testing.assert_close(torch.cat(pieces, 1), state, atol=1e-10, rtol=0)
        # rows of unequal lengths
        rows = [make_ids(n, seed=n) for n in (2, 37, 18)]
        padded, mask = pad_left(rows)
        together = model(padded, attention_mask=mask, output_hidden_states=True).hidden_states
        for index, row in enumerate(rows):
            alone = model(row[None], output_hidden_states=True).hidden_states
            for stride, batch, one in zip(strides, together, alone, strict=True):
                n = len(row) // stride
                here = batch[index, -n:] if stride == 1 else batch[index, :n]
                torch.testing.assert_close(here, one[0], atol=1e-10, rtol=0)


def test_hidden_states_of_a_layer_come_from_that_layer() -> None:
    model = make_model("hourglass")
    seen: list[Tensor] = []
    layers = [layer for step in model.model.decoder.steps if hasattr(step, "layers") for layer in step.layers]
    hooks = [layer.register_forward_hook(lambda _, __, out: seen.append(out)) for layer in layers]
    with torch.no_grad():
        states = model(make_ids(2, 9), output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    assert len(states) == len(seen) + 1
    assert all(torch.equal(state, out) for state, out in zip(states[1:-1], seen[:-1], strict=True))


def test_generate_returns_hidden_states_and_the_cache(model: FoveateForCausalLM) -> None:
    out = model.generate(
        make_ids(1, 9), max_new_tokens=4, do_sample=False, output_hidden_states=True, return_dict_in_generate=True
    )
    assert len(out.hidden_states) == 4
    assert out[CACHE].seen == 12
