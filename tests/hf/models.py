"""One tiny model of every family, with weights all random: what starts at zero would hide its part of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate import FoveateConfig, FoveateForCausalLM

VOCAB = 37
FAMILIES: dict[str, dict] = {
    "plain": {"walk": "2@1"},
    "top_down": {"walk": "0@1 1@16 1@4 1@1"},
    "bottom_up": {"walk": "1@1 1@4 1@16 0@1"},
    "hourglass": {"walk": "1@1 2@4 1@1"},
    "window": {"walk": "1@1:window5 1@4 1@1:window5"},
    "retina": {"walk": "2@1:fovea4,groups=4,scales=2/4"},
    "attention": {"walk": "1@1 1@3 1@1", "pooling": "attention", "expanding": "attention"},
}


def make_model(family: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, **changes) -> FoveateForCausalLM:
    shape = {"vocab_size": VOCAB, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    special = {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": None}
    model = FoveateForCausalLM(FoveateConfig(**{**shape, **special, **FAMILIES[family], **changes})).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.35 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            if "norm" in name:
                parameter += 1
    model.generation_config.eos_token_id = None
    return model


def make_ids(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(3, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def pad_left(rows: list[Tensor], columns: int | None = None) -> tuple[Tensor, Tensor]:
    """ids [B, T] and mask [B, T] of rows of any lengths."""
    columns = columns or max(map(len, rows))
    ids = torch.stack([torch.cat((row.new_zeros(columns - len(row)), row)) for row in rows])
    mask = torch.stack([(torch.arange(columns) >= columns - len(row)).long() for row in rows])
    return ids, mask


def greedy(model: FoveateForCausalLM, ids: Tensor, new: int) -> Tensor:
    """The uncached reference: the whole text is read again for every token."""
    with torch.no_grad():
        for _ in range(new):
            ids = torch.cat((ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)), 1)
    return ids
