"""However a model decodes: going back is exact, and takes no second copy of what may be large."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foveate.bench.peers import Contender, make_models

WALK = "1@1:window8 2@4 1@16 1@1"
SHAPE = {"walk": WALK, "hidden_size": 32, "num_attention_heads": 2}
FOVEA = {**SHAPE, "walk": "2@1:fovea4,groups=4,scales=2/4"}


@pytest.fixture(scope="module")
def contenders() -> dict[str, Contender]:
    return make_models([SHAPE, FOVEA], ["llama", "llama-static"], vocab_size=32)


NAMES = (WALK, FOVEA["walk"], "llama", "llama-static")


def engine(given: Contender, batch: int):
    return given.engine(given.model, batch, given.spec)


def decode(made, tokens: int) -> torch.Tensor:
    state, ids_B1, logits = made.fork(tokens), torch.ones((made.batch, 1), dtype=torch.long), []
    for _ in range(tokens):
        logits.append(made.step(ids_B1, state))
        ids_B1 = logits[-1].argmax(-1, keepdim=True)
    return torch.stack(logits)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_decoding_leaves_the_context_as_it_was(contenders, name) -> None:
    made = engine(contenders[name], 2)
    made.prepare(200)
    made.read(torch.randint(32, (2, 43), generator=torch.Generator().manual_seed(1)))
    first = decode(made, 80)  # past the room that is reserved ahead, and around rings
    assert torch.equal(decode(made, 5), first[:5])
    more = torch.randint(32, (2, 7), generator=torch.Generator().manual_seed(2))
    made.read(more)
    again = engine(contenders[name], 2)
    again.prepare(200)
    again.read(torch.randint(32, (2, 43), generator=torch.Generator().manual_seed(1)))
    again.read(more)
    assert torch.allclose(decode(made, 5), decode(again, 5), atol=1e-5)
    assert list(made.lengths) == [50, 50]


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_ragged_rows_are_as_alone(contenders, name) -> None:
    ids, pads = torch.randint(32, (2, 23), generator=torch.Generator().manual_seed(1)), np.array([0, 9])
    both = engine(contenders[name], 2)
    both.prepare(40)
    both.read(ids, pads)
    assert list(both.lengths) == [23, 14]
    alone = engine(contenders[name], 1)
    alone.prepare(40)
    alone.read(ids[1:, 9:])
    assert torch.allclose(decode(both, 6)[:, 1:], decode(alone, 6), atol=1e-4)


@torch.inference_mode()
def test_what_may_be_large_is_not_copied(contenders) -> None:
    ours = engine(contenders[WALK], 1)
    ours.read(torch.ones((1, 40), dtype=torch.long))
    twin = ours.fork(4)
    for mine, copied in zip(ours.cache.steps.buffers, twin.steps.buffers, strict=True):
        assert (mine is copied) == (not mine.forgets)
    llama = engine(contenders["llama"], 1)
    llama.read(torch.ones((1, 40), dtype=torch.long))
    assert llama.fork(4).layers[0].keys is llama.cache.layers[0].keys


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_filled_state_is_as_large_as_one_that_was_read(contenders, name) -> None:
    made = [engine(contenders[name], 2) for _ in range(2)]
    for one in made:
        one.prepare(60)
    assert made[0].fill(50)
    made[1].read(torch.ones((2, 50), dtype=torch.long))
    assert made[0].state_bytes == made[1].state_bytes > 0
    assert list(made[0].lengths) == list(made[1].lengths)
    assert decode(made[0], 2).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_rows_of_a_filled_state_may_differ_in_length(contenders, name) -> None:
    made, pads = engine(contenders[name], 2), np.array([0, 9])
    made.prepare(60)
    assert made.fill(50, pads)
    assert list(made.lengths) == [50, 41]
    first = decode(made, 9)
    assert first.isfinite().all()
    assert torch.equal(decode(made, 9), first)
