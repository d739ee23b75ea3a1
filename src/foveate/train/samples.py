"""Text that a model writes while it is trained, drawn without touching the run: its random numbers and mode stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from foveate.data.decode import TextDecoder
from foveate.data.prompt import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 48
TEMPERATURE = 0.8


@torch.no_grad()
def write_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, *, seed: int, most: int) -> str:
    """What the model goes on with after ``prompt``: the same draws every time, so that texts differ by what was learnt.

    Everything is read again for each token, which any model can do.

    Args:
        most: tokens that it reads at once, the prompt's included.
    """
    ids = encode_prompt(tokenizer, prompt)[-most + 1 :]
    decoder, ends = TextDecoder(tokenizer, ids), tokenizer.eos_token_id
    generator = torch.Generator().manual_seed(seed % 2**32)
    forward: Any = model
    training = model.training
    model.eval()
    try:
        for _ in range(min(TOKENS, most - len(ids))):
            logits_V = forward(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1]
            share_V = (logits_V.float().cpu() / TEMPERATURE).softmax(-1)
            ids.append(int(torch.multinomial(share_V, 1, generator=generator)))
            if ids[-1] == ends:
                break
            decoder.push(ids[-1])
    finally:
        model.train(training)
    return decoder.text
