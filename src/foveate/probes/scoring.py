"""The loss of each token of many rows of text, under anything that is called as a causal language model.

Legend: B rows, T tokens of a row, K of them scored, V vocabulary.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from foveate.train.evaluate import (
    LOGITS_PER_BATCH,
    LOGITS_PER_CHUNK,
    TOKENS_PER_BATCH,
    check_context,
    check_ids,
    prefix_id,
)
from foveate.train.memory import check_scoring_memory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def fast_dtype(device: torch.device) -> str:
    """``bf16`` where the device multiplies it faster than fp32, else ``fp32``."""
    if device.type == "cuda":
        gains = torch.cuda.is_bf16_supported()
    else:
        gains = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bf16" if gains else "fp32"


class Scorer:
    """Scores the last tokens of rows, each row read after the mark a document begins with.

    Args:
        model: called as ``model(input_ids=...)``, it returns logits, or something that has them as ``logits``.
        batch: rows computed at once; by default as many as keep the logits near half a GiB.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, batch: int | None = None) -> None:
        self.model = model
        self.prefix = prefix_id(tokenizer)
        self.batch = batch
        parameters = model.parameters() if hasattr(model, "parameters") else ()
        self.device = next((parameter.device for parameter in parameters), torch.device("cpu"))
        takes = inspect.signature(getattr(model, "forward", model)).parameters
        self._options: dict[str, Any] = {"use_cache": False} if "use_cache" in takes else {}
        self._keeps_logits = "logits_to_keep" in takes
        config = getattr(model, "config", None)
        self.vocabulary: int = config.get_text_config().vocab_size if config is not None else len(tokenizer)

    def check(self, ids_NT: np.ndarray) -> None:
        """Raise a ``FoveateError`` unless the model has positions for such rows, and knows their ids."""
        if getattr(self.model, "config", None) is not None:
            check_context(self.model, ids_NT.shape[1])
            check_ids(ids_NT.flatten(), "the text", self.model)
            check_ids([self.prefix], "the mark that begins a document", self.model)

    def rows_at_once(self, T: int) -> int:
        return self.batch or max(1, min(TOKENS_PER_BATCH // T, LOGITS_PER_BATCH // (T * self.vocabulary)))

    @torch.inference_mode()
    def __call__(self, ids_BT: np.ndarray, K: int) -> np.ndarray:
        """Negative log-likelihood in nats of the last ``K`` tokens of each row, given all before: float32 [B, K]."""
        losses = []
        for rows_BT in np.array_split(ids_BT, -(-len(ids_BT) // self.rows_at_once(ids_BT.shape[1]))):
            check_scoring_memory(len(rows_BT), K, self.vocabulary, self.device)
            losses.append(self._score(rows_BT, K))
        return np.concatenate(losses)

    def _score(self, ids_BT: np.ndarray, K: int) -> np.ndarray:
        ids = torch.from_numpy(ids_BT).to(self.device)
        inputs_BT = torch.cat([ids.new_full((len(ids), 1), self.prefix), ids[:, :-1]], 1)
        keep = {"logits_to_keep": K} if self._keeps_logits else {}
        output = self.model(input_ids=inputs_BT, **self._options, **keep)
        logits_BKV = getattr(output, "logits", output)[:, -K:]
        targets_BK = ids[:, -K:]
        chunk = max(1, LOGITS_PER_CHUNK // (K * logits_BKV.shape[2]))
        parts = [
            torch.logsumexp(logits.float(), 2) - logits.gather(2, targets[..., None])[..., 0].float()
            for logits, targets in zip(logits_BKV.split(chunk), targets_BK.split(chunk), strict=True)
        ]
        return torch.cat(parts).cpu().numpy()
