"""Token ids in, causal features out, whatever the padding: embedding and decoder.

Shape legend: B batch rows, T new columns (pads included), D width of level 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveate.errors import FoveateError
from foveate.model.cache import StepCache
from foveate.model.decoder import Decoder
from foveate.spec import HierarchySpec


class LanguageModel(nn.Module):
    """Embedding and decoder. Rows count from their own first real token, wherever the padding is."""

    def __init__(self, spec: HierarchySpec, vocab_size: int, *, theta: float = 10_000.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, spec.levels[0].width)
        self.decoder = Decoder(spec, theta=theta, eps=eps)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Raises FoveateError for ids outside the vocabulary where the device reports them (CPU)."""
        try:
            return self.embed_tokens(ids_BT)
        except IndexError:
            outside = ids_BT[(ids_BT < 0) | (ids_BT >= self.embed_tokens.num_embeddings)]
            raise FoveateError(
                f"token id {int(outside[0])} is outside the vocabulary of {self.embed_tokens.num_embeddings} ids; "
                f"encode the text with the tokenizer this model was trained with"
            ) from None

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None, cache: StepCache | None = None) -> Tensor:
        """Features [B, T, D]; zeros where ``mask_BT`` is 0 (padding, at any place)."""
        if mask_BT is None or bool((mask_BT != 0).all()):
            return self.decoder(x_BTD, cache)
        mask_BT = mask_BT != 0
        counts = mask_BT.sum(1)
        # each row's real tokens first, in order; a stable sort of the mask says from where to where
        order_BT1 = mask_BT.int().argsort(dim=1, descending=True, stable=True)[..., None]
        x_BTD = x_BTD.gather(1, order_BT1.expand_as(x_BTD))
        h_BTD = self.decoder(x_BTD, cache, counts.cpu().numpy())
        h_BTD = torch.zeros_like(h_BTD).scatter(1, order_BT1.expand_as(h_BTD), h_BTD)
        return h_BTD.masked_fill(~mask_BT[..., None], 0)
