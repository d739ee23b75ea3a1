"""Losses by place: what a token is read after, means over kinds of tokens, and the table of two runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.data.tokenizer import make_tokenizer
from foveate.scoring import Scorer

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def by_place() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXPERIMENTS))
    import by_place

    yield by_place
    sys.path.remove(str(EXPERIMENTS))


def test_a_token_is_read_after_at_most_twice_as_many_as_are_near(by_place) -> None:
    """Token 9 with 4 near: it stands in the group 8 to 11, which is read after tokens 4 to 7."""
    tokenizer = make_tokenizer("bytes", list)
    config = FoveateConfig(walk="2@1", vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2)
    model = FoveateForCausalLM(config).eval()
    ids_NT = np.random.default_rng(0).integers(0, 256, (2, 14))
    scorer = Scorer(model, tokenizer)
    with scorer.ready():
        got_NT = by_place.read_within(scorer, ids_NT, 4)
        assert got_NT.shape == (2, 12)  # the last two are no whole group
        read = np.concatenate([[scorer.prefix], ids_NT[1, 4:9]])[None]
        logits_V = model(input_ids=torch.from_numpy(read)).logits[0, -1]
    assert got_NT[1, 9] == pytest.approx(float(cross_entropy(logits_V, torch.tensor(ids_NT[1, 9]))), rel=1e-5)


def test_a_table_has_means_over_its_kinds_and_their_differences(by_place) -> None:
    first_NT = np.tile(np.arange(4.0), (6, 1))
    here_NT = np.tile([False, True, True, False], (6, 1))
    row = by_place.table({"a": first_NT, "b": first_NT - 0.25}, {"middle": here_NT}).splitlines()[-1]
    assert row == "| middle | 12 | 1.500 | -0.250 [-0.250, -0.250] |"
