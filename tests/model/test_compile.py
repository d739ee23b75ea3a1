"""A compiler sees one graph: no walk breaks it, and lengths that change are compiled for once."""

import pytest
import torch
import torch._dynamo

from contracts.checks import make_decoder
from contracts.walks import WALKS

LENGTHS = (40, 41, 57)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nested", "windows", "attention_attention", "fovea"])
def test_training_is_one_graph_of_any_length(name: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    decoder = make_decoder(WALKS[name])
    compiled = torch.compile(decoder, fullgraph=True, backend="eager")
    for length in LENGTHS:
        x_BTD = torch.randn(2, length, 8, dtype=torch.float64)
        found = compiled(x_BTD)
        torch.testing.assert_close(found, decoder(x_BTD), rtol=0, atol=1e-10)
        gradients = torch.autograd.grad(found.sin().sum(), list(decoder.parameters()), allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in gradients)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    assert not torch._dynamo.utils.counters["graph_break"]
