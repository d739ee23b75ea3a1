import numpy as np
import pytest
import torch

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.hf.phases import Phases
from foveate.hf.stream import stream_batch


@pytest.mark.parametrize("seed", range(20))
def test_all_rows_soon_go_on_together_and_in_phase(seed: int) -> None:
    random = np.random.default_rng(seed)
    stride = int(random.choice([1, 4, 16]))
    lengths = random.integers(0, 100, random.integers(1, 9))
    phases = Phases(lengths.copy(), stride, 1000)
    for _ in range(stride):
        active = phases.step()
        assert active.any()
        lengths[active] += 1
        if active.all():
            break
    assert active.all()
    assert len(set(lengths % stride)) == 1


def test_nobody_waits_for_a_few_tokens() -> None:
    assert Phases(np.array([3, 5, 8]), 16, 10).step().all()


def test_coarse_layers_are_called_once_for_all_rows() -> None:
    torch.manual_seed(0)
    config = FoveateConfig(walk="1@1 1@8 1@1", vocab_size=40, hidden_size=16, num_attention_heads=2)
    model = FoveateForCausalLM(config).eval()
    coarse = model.model.decoder.steps[2].layers[0]
    calls = []
    hook = coarse.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    list(stream_batch(model, [[1] * length for length in (3, 9, 14, 20)], max_new_tokens=80))
    hook.remove()
    del calls[0]  # of the prompts
    assert len(calls) <= 80 // 8 + 2
    assert calls.count(4) >= 80 // 8 - 1
