import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foveate.converting import from_llama
from foveate.errors import FoveateError


def tiny_llama(**changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=61, **{**shape, **changes})).eval()
    with torch.no_grad():
        for parameter in llama.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)  # norms that are not all one, too
    return llama


@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 2}, {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}]
)
def test_a_llama_becomes_a_plain_walk(changes: dict[str, object]) -> None:
    llama = tiny_llama(**changes)
    model = from_llama(llama)
    ids = torch.randint(0, 61, (2, 40))
    with torch.no_grad():
        expected = llama(ids).logits
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.5  # logits that could differ


def test_what_a_plain_walk_lacks_is_refused() -> None:
    with pytest.raises(FoveateError, match="head_dim is 16"):
        from_llama(tiny_llama(head_dim=16))
    with pytest.raises(FoveateError, match="bias"):
        from_llama(tiny_llama(mlp_bias=True))
