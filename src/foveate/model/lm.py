"""Token ids in, causal features out, whatever the padding and however long: embedding and decoder.

Shape legend: B batch rows, T new columns (pads included), D width of level 1.
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
    return CHUNK_LOCAL if all(run.attention.flat for run in spec.runs if run.layers) else CHUNK_FULL


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
    if mask_BT is None or _all_real(mask_BT):
        h_BTD = _decode(decoder, x_BTD, cache, None, trace, documents_BT)
    else:
        mask_BT = mask_BT != 0
        # each row's real tokens first, in order; a stable sort of the mask says from where to where
        order_BT1 = mask_BT.int().argsort(dim=1, descending=True, stable=True)[..., None]
        sorted_BTD = x_BTD.gather(1, order_BT1.expand_as(x_BTD))
        if documents_BT is not None:
            documents_BT = documents_BT.gather(1, order_BT1[..., 0])
        h_BTD = _decode(decoder, sorted_BTD, cache, mask_BT.sum(1), trace, documents_BT)
        h_BTD = in_columns(h_BTD, order_BT1).masked_fill(~mask_BT[..., None], 0)
    if streams is not None and trace is not None:
        streams += lay_out(decoder.spec, x_BTD, trace, h_BTD, order_BT1)
    return h_BTD


def _all_real(mask_BT: Tensor) -> bool:
    """Whether it is known that nothing is padding: elsewhere than on a CPU, to look would be to wait for the device."""
    return mask_BT.device.type == "cpu" and not torch.compiler.is_compiling() and bool((mask_BT != 0).all())


def _decode(
    decoder: Decoder,
    x_BTD: Tensor,
    cache: StepCache | None,
    counts_B: Tensor | None,
    trace: Trace | None,
    documents_BT: Tensor | None,
) -> Tensor:
    if documents_BT is None:
        # later columns change nothing of earlier ones: only a cache and streams have to know how many a row has
        needed = counts_B is not None and (cache is not None or trace is not None)
        return decoder(x_BTD, cache, counts_B.cpu().numpy() if needed else None, trace)  # type: ignore[union-attr]
    assert cache is None, "packed rows have no cache"
    assert trace is None, "packed rows have no streams"
    if counts_B is not None:  # what is padded stands last, as a document of its own
        padded_BT = torch.arange(x_BTD.shape[1], device=x_BTD.device) >= counts_B[:, None]
        documents_BT = torch.where(padded_BT, documents_BT.amax(1, keepdim=True) + 1, documents_BT)
    return decoder(x_BTD, documents=documents_BT)
