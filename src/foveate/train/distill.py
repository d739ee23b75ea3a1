"""Learning from a teacher: its predictions are a second target, kept on the disk where asked so that it runs once.

Legend: B sequences, T tokens, V vocabulary, K tokens that the teacher finds likeliest.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foveate.data import store
from foveate.data.corpus import IGNORED_LABEL, Blocks
from foveate.errors import FoveateError
from foveate.hf.identity import weights_digest
from foveate.loading import load
from foveate.scoring import check_context
from foveate.train.settings import TrainSettings

WEIGHT, TEMPERATURE = 0.5, 1.0  # unless asked for
LEAST = 1e-9  # probability


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A model to learn from: the loss is (1 - weight) NLL + weight · temperature² · KL(teacher ‖ student).

    Both distributions of the divergence are taken at ``temperature``; its square keeps gradients of one size.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    weight: float
    temperature: float
    digest: str
    answers: Answers | None = None

    def check_reads(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raise a ``FoveateError`` unless the tokens of ``tokenizer`` are those that the teacher reads."""
        theirs, ours = self.tokenizer.get_vocab().items(), tokenizer.get_vocab().items()
        added = {token for token, _ in ours - theirs} - set(tokenizer.all_special_tokens)  # such as for padding
        if theirs - ours or added:
            raise FoveateError(
                f"--teacher: {self.name} reads other tokens than the model; give the model its tokenizer: "
                f"--tokenizer {self.name}"
            )

    def keeping_answers(self, blocks: Blocks, settings: TrainSettings) -> Teacher:
        """The same teacher, with what it has said of these sequences, if the settings want that kept."""
        if settings.teacher_top is None:
            return self
        tokens = hashlib.blake2b(np.ascontiguousarray(blocks.corpus.tokens).tobytes(), digest_size=16).hexdigest()
        key = [1, self.digest, tokens, blocks.context, settings.teacher_top, self.temperature, settings.dtype]
        path = store.cache_folder() / "teacher" / hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()
        vocabulary = self.model.config.get_text_config().vocab_size
        return replace(
            self, answers=Answers(path, length=blocks.context, top=settings.teacher_top, vocabulary=vocabulary)
        )

    def loss(self, student: Any, batch: dict[str, Tensor], targets: float) -> Tensor:
        """The loss of a part of a batch, in nats per token of ``targets``, the tokens that its step predicts."""
        ids_BT, next_BT = batch["input_ids"], batch["labels"][:, 1:]
        logits_BTV = student(input_ids=ids_BT, use_cache=False).logits[:, :-1].float()
        nll = cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), ignore_index=IGNORED_LABEL, reduction="sum")
        mine_BTV = log_softmax(logits_BTV / self.temperature, -1)
        if self.answers is None:
            divergence_BT = divergence(self._predict(ids_BT, mine_BTV.shape[-1]), mine_BTV)
        else:
            divergence_BT = top_divergence(*self._look_up(batch, mine_BTV.shape[-1]), mine_BTV)
        apart = (divergence_BT * (next_BT != IGNORED_LABEL)).sum()
        return ((1 - self.weight) * nll + self.weight * self.temperature**2 * apart) / targets

    @torch.no_grad()
    def _predict(self, ids_BT: Tensor, vocabulary: int) -> Tensor:
        """The teacher's log-probabilities [B, T - 1, V] of what follows each token but the last."""
        logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits[:, :-1, :vocabulary]
        return log_softmax(logits_BTV.float() / self.temperature, -1)

    def _look_up(self, batch: dict[str, Tensor], vocabulary: int) -> tuple[Tensor, Tensor]:
        assert self.answers is not None
        numbers, device = batch["number"].tolist(), batch["input_ids"].device
        found = [self.answers.read(number) for number in numbers]
        if any(answer is None for answer in found):
            top = self._predict(batch["input_ids"], vocabulary).topk(self.answers.top, dim=-1)
            for row, number in enumerate(numbers):
                if found[row] is None:
                    # read back, so that an answer is the same whether it was there or not
                    self.answers.write(number, top.indices[row].cpu().numpy(), top.values[row].cpu().numpy())
                    found[row] = self.answers.read(number)
        ids, logs = zip(*(answer for answer in found if answer is not None), strict=True)
        return torch.from_numpy(np.stack(ids)).to(device), torch.from_numpy(np.stack(logs)).to(device)


def divergence(theirs_BTV: Tensor, mine_BTV: Tensor) -> Tensor:
    """KL [B, T] in nats between log-probabilities; ``mine`` may know more tokens, which ``theirs`` never expects."""
    return (theirs_BTV.exp() * (theirs_BTV - mine_BTV[..., : theirs_BTV.shape[-1]])).sum(-1)


def top_divergence(ids_BTK: Tensor, theirs_BTK: Tensor, mine_BTV: Tensor) -> Tensor:
    """KL [B, T] in nats where of ``theirs`` the likeliest tokens are known, and all others count as one token."""
    mine_BTK = mine_BTV.gather(-1, ids_BTK)
    rest_BT = (1 - theirs_BTK.exp().sum(-1)).clamp(min=0)
    my_rest_BT = (1 - mine_BTK.exp().sum(-1)).clamp(min=LEAST)
    known_BT = (theirs_BTK.exp() * (theirs_BTK - mine_BTK)).sum(-1)
    return known_BT + torch.xlogy(rest_BT, rest_BT) - rest_BT * my_rest_BT.log()


class Answers:
    """The likeliest tokens after each token of each sequence of a corpus, and their log-probabilities, in one file.

    A record has a checksum: one that was never written, or only in part, is none.
    """

    def __init__(self, path: Path, *, length: int, top: int, vocabulary: int) -> None:
        self.top = top
        self.shape = (length - 1, top)
        self.id_dtype = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
        self.size = 4 + (length - 1) * top * (self.id_dtype.itemsize + 2)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids int64 and log-probabilities fp32, [T - 1, K] each; None where there are none."""
        record = os.pread(self.file, self.size, number * self.size)
        if len(record) < self.size or zlib.crc32(record[4:]) != int.from_bytes(record[:4], "little"):
            return None
        cut = 4 + self.shape[0] * self.top * self.id_dtype.itemsize
        ids = np.frombuffer(record[4:cut], self.id_dtype).reshape(self.shape)
        return ids.astype(np.int64), np.frombuffer(record[cut:], np.float16).reshape(self.shape).astype(np.float32)

    def write(self, number: int, ids: np.ndarray, logs: np.ndarray) -> None:
        content = ids.astype(self.id_dtype).tobytes() + logs.astype(np.float16).tobytes()
        record = zlib.crc32(content).to_bytes(4, "little") + content
        if os.pwrite(self.file, record, number * self.size) != len(record):
            raise OSError(28, "No space left on device")


def open_teacher(settings: TrainSettings, device: torch.device) -> Teacher:
    """The teacher that the settings name.

    Raises:
        FoveateError: there is none; it has too few positions, or knows fewer tokens than are to be kept.
    """
    name = str(settings.teacher)
    model, tokenizer = load(name, device=device)
    check_context(model, settings.context)
    vocabulary = model.config.get_text_config().vocab_size
    if settings.teacher_top is not None and settings.teacher_top > vocabulary:
        raise FoveateError(f"--teacher-top: {settings.teacher_top} are more than the {vocabulary:,} tokens there are")
    return Teacher(
        name=name,
        model=model.requires_grad_(False),
        tokenizer=tokenizer,
        weight=WEIGHT if settings.distill is None else settings.distill,
        temperature=settings.temperature or TEMPERATURE,
        digest=weights_digest(model),
    )
