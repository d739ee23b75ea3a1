"""Token ids in, causal features out, whatever the padding and however long: embedding and decoder.

Shape legend: B batch rows, T new columns (pads included), D width of level 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveate.errors import FoveateError
from foveate.model.cache import StepCache
from foveate.model.decoder import Decoder
from foveate.model.streams import Trace, in_columns, in_rows
from foveate.spec import HierarchySpec

# Tokens read at once where nothing has to be kept for a backward pass. Full attention compares them with everything
# before, so a call costs memory for each pair; windows and foveas only for each token.
CHUNK_FULL = 1024
CHUNK_LOCAL = 4096


class LanguageModel(nn.Module):
    """Embedding and decoder. Rows count from their own first real token, wherever the padding is."""

    def __init__(self, spec: HierarchySpec, vocab_size: int, *, theta: float = 10_000.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, spec.levels[0].width)
        self.decoder = Decoder(spec, theta=theta, eps=eps)
        full = any(run.layers and run.attention.kind == "full" for run in spec.runs)
        self.chunk = CHUNK_FULL if full else CHUNK_LOCAL

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

    def forward(
        self,
        tokens: Tensor,
        mask_BT: Tensor | None = None,
        cache: StepCache | None = None,
        keep: int = 0,
        streams: list[Tensor] | None = None,
    ) -> Tensor:
        """Features [B, T, D], zeros where ``mask_BT`` is 0 (padding, at any place); if given, the last ``keep``.

        ``tokens`` are ids [B, T] or embeddings [B, T, D]. What is longer than a chunk is read chunk by chunk into the
        cache, if there is one and no gradients are asked for: memory then follows the chunk, not T.

        ``streams`` (all T are read at once then) gets the embeddings [B, T, D], the output of every layer in the order
        of the walk, and last the features. A layer of level 1 puts out [B, T, D], one of a coarser level [B, S, C]: the
        S units that are new at most in a row, from the left. The features stand for the last layer's output if that
        layer is on level 1, else they follow it. Padding is zeros.
        """
        B, T = tokens.shape[:2]
        columns = self.chunk // max(B, 1)  # at once
        if columns >= T or cache is None or torch.is_grad_enabled() or streams is not None:
            return self._read(tokens, mask_BT, cache, streams)[:, -keep:]
        step = max(columns, 1)
        kept = []
        for start in range(0, T, step):
            end = min(start + step, T)
            mask = None if mask_BT is None else mask_BT[:, start:end]
            h_BSD = self._read(tokens[:, start:end], mask, cache)
            if keep == 0 or end > T - keep:
                kept.append(h_BSD)
        return torch.cat(kept, 1)[:, -keep:]

    def _read(
        self,
        tokens: Tensor,
        mask_BT: Tensor | None,
        cache: StepCache | None,
        streams: list[Tensor] | None = None,
    ) -> Tensor:
        x_BTD = tokens if tokens.is_floating_point() else self.embed(tokens)
        trace: Trace | None = None if streams is None else []
        if mask_BT is None or bool((mask_BT != 0).all()):
            h_BTD = self.decoder(x_BTD, cache, None, trace)
            self._lay_out(x_BTD, trace, h_BTD, None, streams)
            return h_BTD
        mask_BT = mask_BT != 0
        counts = mask_BT.sum(1)
        # each row's real tokens first, in order; a stable sort of the mask says from where to where
        order_BT1 = mask_BT.int().argsort(dim=1, descending=True, stable=True)[..., None]
        sorted_BTD = x_BTD.gather(1, order_BT1.expand_as(x_BTD))
        h_BTD = self.decoder(sorted_BTD, cache, counts.cpu().numpy(), trace)
        h_BTD = in_columns(h_BTD, order_BT1).masked_fill(~mask_BT[..., None], 0)
        self._lay_out(x_BTD, trace, h_BTD, order_BT1, streams)
        return h_BTD

    def _lay_out(
        self,
        x_BTD: Tensor,
        trace: Trace | None,
        h_BTD: Tensor,
        order_BT1: Tensor | None,
        streams: list[Tensor] | None,
    ) -> None:
        if streams is None or trace is None:
            return
        streams.append(x_BTD)
        runs = self.decoder.spec.runs
        strides = [run.stride for run in runs for _ in range(run.layers)]
        if runs[-1].layers:
            strides.pop()
        for stride, (span, x_RSD) in zip(strides, trace, strict=False):
            x_BSD = in_rows(span, x_RSD, len(x_BTD))
            streams.append(in_columns(x_BSD, order_BT1) if stride == 1 and order_BT1 is not None else x_BSD)
        streams.append(h_BTD)
