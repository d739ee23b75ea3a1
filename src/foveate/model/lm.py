"""Token ids in, causal features out, whatever the padding and however long: embedding and decoder.

Shape legend: B batch rows, T new columns (pads included), D width of level 1, N documents, L tokens of the longest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveate.errors import FoveateError
from foveate.model.cache import StepCache
from foveate.model.decoder import Decoder
from foveate.model.streams import Trace, in_columns, lay_out
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
        self.chunk = chunk_of(spec)

    def forward(
        self,
        tokens: Tensor,
        mask_BT: Tensor | None = None,
        cache: StepCache | None = None,
        keep: int = 0,
        streams: list[Tensor] | None = None,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """See ``read``."""
        return read(
            self.embed_tokens, self.decoder, tokens, mask_BT, cache, keep, streams, documents_BT, chunk=self.chunk
        )


def chunk_of(spec: HierarchySpec) -> int:
    """Columns to read at once, in all rows together."""
    full = any(run.layers and run.attention.kind == "full" for run in spec.runs)
    return CHUNK_FULL if full else CHUNK_LOCAL


def embed(embedding: nn.Embedding, ids_BT: Tensor) -> Tensor:
    """Raises FoveateError for ids outside the vocabulary where the device reports them (CPU)."""
    try:
        return embedding(ids_BT)
    except IndexError:
        outside = ids_BT[(ids_BT < 0) | (ids_BT >= embedding.num_embeddings)]
        raise FoveateError(
            f"token id {int(outside[0])} is outside the vocabulary of {embedding.num_embeddings} ids; "
            f"encode the text with the tokenizer this model was trained with"
        ) from None


def read(
    embedding: nn.Embedding,
    decoder: Decoder,
    tokens: Tensor,
    mask_BT: Tensor | None = None,
    cache: StepCache | None = None,
    keep: int = 0,
    streams: list[Tensor] | None = None,
    documents_BT: Tensor | None = None,
    *,
    chunk: int,
) -> Tensor:
    """Features [B, T, D], zeros where ``mask_BT`` is 0 (padding, at any place); if given, the last ``keep``.

    ``tokens`` are ids [B, T] or embeddings [B, T, D]. What is longer than ``chunk`` columns, in all rows together, is
    read chunk by chunk into the cache, if there is one and no gradients are asked for: memory then follows the chunk,
    not T.

    ``streams`` (all T are read at once then) gets the embeddings [B, T, D], the output of every layer in the order
    of the walk, and last the features. A layer of level 1 puts out [B, T, D], one of a coarser level [B, S, C]: the
    S units that are new at most in a row, from the left. The features stand for the last layer's output if that
    layer is on level 1, else they follow it. Padding is zeros.

    ``documents_BT`` numbers the document of each real token in its row, never falling along it: each document gives
    what it gives alone. They are for rows without a cache and without ``streams``.
    """
    B, T = tokens.shape[:2]
    columns = chunk // max(B, 1)  # at once
    if columns >= T or cache is None or torch.is_grad_enabled() or streams is not None:
        return _read(embedding, decoder, tokens, mask_BT, cache, streams, documents_BT)[:, -keep:]
    step = max(columns, 1)
    kept = []
    for start in range(0, T, step):
        end = min(start + step, T)
        mask = None if mask_BT is None else mask_BT[:, start:end]
        h_BSD = _read(embedding, decoder, tokens[:, start:end], mask, cache)
        if keep == 0 or end > T - keep:
            kept.append(h_BSD)
    return torch.cat(kept, 1)[:, -keep:]


def _read(
    embedding: nn.Embedding,
    decoder: Decoder,
    tokens: Tensor,
    mask_BT: Tensor | None,
    cache: StepCache | None,
    streams: list[Tensor] | None = None,
    documents_BT: Tensor | None = None,
) -> Tensor:
    x_BTD = tokens if tokens.is_floating_point() else embed(embedding, tokens)
    trace: Trace | None = None if streams is None else []
    order_BT1 = None
    if mask_BT is None or bool((mask_BT != 0).all()):
        h_BTD = _decode(decoder, x_BTD, cache, None, trace, documents_BT)
    else:
        mask_BT = mask_BT != 0
        counts = mask_BT.sum(1)
        # each row's real tokens first, in order; a stable sort of the mask says from where to where
        order_BT1 = mask_BT.int().argsort(dim=1, descending=True, stable=True)[..., None]
        sorted_BTD = x_BTD.gather(1, order_BT1.expand_as(x_BTD))
        if documents_BT is not None:
            documents_BT = documents_BT.gather(1, order_BT1[..., 0])
        h_BTD = _decode(decoder, sorted_BTD, cache, counts, trace, documents_BT)
        h_BTD = in_columns(h_BTD, order_BT1).masked_fill(~mask_BT[..., None], 0)
    if streams is not None and trace is not None:
        streams += lay_out(decoder.spec, x_BTD, trace, h_BTD, order_BT1)
    return h_BTD


def _decode(
    decoder: Decoder,
    x_BTD: Tensor,
    cache: StepCache | None,
    counts_B: Tensor | None,
    trace: Trace | None,
    documents_BT: Tensor | None,
) -> Tensor:
    if documents_BT is None:
        return decoder(x_BTD, cache, None if counts_B is None else counts_B.cpu().numpy(), trace)
    assert cache is None, "packed rows have no cache"
    assert trace is None, "packed rows have no streams"
    return one_by_one(decoder, x_BTD, counts_B, documents_BT)


def one_by_one(decoder: Decoder, x_BTD: Tensor, counts_B: Tensor | None, documents_BT: Tensor) -> Tensor:
    """Features [B, T, D] of packed rows, each document read in a row of its own; zeros past a row's count."""
    B, T, D = x_BTD.shape
    real_BT = torch.ones(B, T, dtype=torch.bool, device=x_BTD.device)
    if counts_B is not None:
        real_BT = torch.arange(T, device=x_BTD.device) < counts_B[:, None]
    begins_BT = torch.ones_like(real_BT)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    number = begins_BT[real_BT].cumsum(0) - 1  # of each real token's document, in all rows
    lengths_N = torch.bincount(number)
    column = torch.arange(len(number), device=number.device) - (lengths_N.cumsum(0) - lengths_N)[number]
    x_NLD = x_BTD.new_zeros(len(lengths_N), int(lengths_N.max()), D)
    x_NLD = x_NLD.index_put((number, column), x_BTD[real_BT])
    h_NLD = decoder(x_NLD, None, lengths_N.cpu().numpy())
    return torch.zeros_like(x_BTD).index_put((real_BT,), h_NLD[number, column].to(x_BTD.dtype))
