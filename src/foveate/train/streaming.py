"""Training on text as it streams: what a run reads, in which batches, and where it stands.

Legend: B sequences of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from foveate.data.documents import find_sources, fingerprint
from foveate.data.encode import encode_documents
from foveate.data.stream import BlockStream, Position, TextStream, take_characters
from foveate.errors import FoveateError
from foveate.train.distributed import World
from foveate.train.documents import Document, cut
from foveate.train.settings import MOVABLE, TrainSettings, flag_name
from foveate.train.shares import share

REMEMBERED_STEPS = 1000  # of which it is known what they read: more than there are between two lines of the log


def text_stream(settings: TrainSettings) -> TextStream:
    """The text of a run's ``data``, without what it validates on."""
    held_out = 0.0 if settings.valid_data else settings.valid_fraction
    return TextStream(settings.data, reading=settings.reading, valid_fraction=held_out, seed=settings.seed)


def data_fingerprint(settings: TrainSettings) -> str:
    """Of what a run is trained on, wherever it lies: its contents; of a stream the names and sizes of its files."""
    if settings.stream:
        return text_stream(settings).fingerprint()
    return fingerprint(settings.data, reading=settings.reading)


def valid_data_fingerprint(settings: TrainSettings) -> str | None:
    """The same of what it is validated on, where that has a place of its own."""
    return fingerprint(settings.valid_data, reading=settings.reading) if settings.valid_data else None


def check_data_is_there(settings: TrainSettings) -> None:
    """Raise a ``FoveateError`` that says what to do where a run's data was moved."""
    for name in MOVABLE:
        for entry in getattr(settings, name):
            try:
                find_sources(entry)
            except FoveateError as error:
                flag = flag_name(name)
                raise FoveateError(
                    f"{error}; if it has moved: foveate train --resume {settings.out} {flag} NEW/PLACE"
                ) from None


def first_texts(stream: TextStream, characters: int) -> Iterator[str]:
    """The first training documents, each once, for a tokenizer to learn from."""
    once = takewhile(lambda item: item[0].turn == 0, stream.training_texts())
    return take_characters((text for _, text in once), characters)


def held_out_documents(stream: TextStream, tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[Document]:
    """The first ``tokens`` tokens that are held out, or all of fewer.

    Raises:
        FoveateError: no document is.
    """
    documents: list[Document] = []
    left = tokens
    for text in stream.held_out_texts():
        [(_, ids)] = encode_documents(tokenizer, [text])  # one by one: the next may be far ahead
        whole = Document(ids=ids.astype(np.int64), text_bytes=len(text.encode()))
        documents.append(cut(whole, left, tokenizer))
        left -= len(documents[-1].ids)
        if left <= 0:
            break
    if not documents:
        raise FoveateError(
            "no document of --data is held out: of a stream whole ones are, by chance; name text with --valid-data, "
            "give a larger --valid-fraction, or 0 to train without validation"
        )
    return documents


class StreamLoader:
    """A process's parts of the batches of a stream, from where ``position`` is.

    Attributes:
        position: after the last batch that was drawn whole.
    """

    def __init__(self, stream: BlockStream, settings: TrainSettings, world: World) -> None:
        self.stream = stream
        self.settings = settings
        self.world = world
        self.position = Position()
        self.step = 0
        self._read_at: dict[int, Position] = {}

    def state(self) -> dict[str, Any]:
        """What ``restore`` takes."""
        return {"step": self.step, "position": self.position.to_json()}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.position = state["step"], Position(**state["position"])

    def batches(self, step: int) -> Iterator[dict[str, Tensor]]:
        """``input_ids`` and ``labels`` [B, T] of each part of the steps after ``step``, where ``position`` is."""
        return iter(self)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        settings = self.settings
        for ids_BT, after in self.stream.batches(settings.batch, self.position):
            self.step += 1
            self._read_at[self.step] = self.position
            self._read_at.pop(self.step - REMEMBERED_STEPS, None)
            for part in range(settings.accumulate):
                rows_BT = torch.from_numpy(share(ids_BT, part, parts=settings.accumulate, world=self.world))  # type: ignore[arg-type]
                if part == settings.accumulate - 1:
                    self.position = after
                yield {"input_ids": rows_BT, "labels": rows_BT}

    def where(self, step: int) -> list[str]:
        """What a step has read, for a person."""
        position = self._read_at.get(step)
        if position is None:
            return ["a part of the stream that was read before the run was resumed"]
        return [f"the {self.stream.blocks_per_window} sequences of {self.stream.texts.where(position)}"]
