"""The model's cache in the shape ``generate`` expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from foveate.errors import FoveateError
from foveate.hf.state_file import read_state, write_state
from foveate.model.cache import StepCache

MARGIN = 64  # tokens more than those read since the last crop that a recording cache can take back


class FoveateCache(Cache):
    """A ``StepCache`` and the number of input columns seen, padding included, which is what ``generate`` counts."""

    def __init__(self, steps: StepCache) -> None:
        super().__init__(layers=[])
        self.steps = steps
        self.seen = 0
        self.unpadded = 0  # newest columns that are a real token in every row: what crop may remove
        self.recording = False  # whether generate is going to crop
        self._since_crop = 0

    def expect(self, columns: int) -> None:
        """Make sure, if recording, that the next ``columns`` columns can be taken back too."""
        if not self.recording:
            return
        self._since_crop += columns
        if self._since_crop + MARGIN > self.steps.slack:
            self.steps.record_past(2 * (self._since_crop + MARGIN))

    def note(self, columns: int, mask_BT: Tensor | None) -> None:
        """Count the columns of a call that the model has just read."""
        self.seen += columns
        if mask_BT is None or bool((mask_BT != 0).all()):
            self.unpadded += columns
        else:
            padded = (mask_BT == 0).any(0).nonzero()
            self.unpadded = columns - 1 - int(padded[-1])

    @property
    def nbytes(self) -> int:
        """Bytes held, capacity included."""
        return self.steps.nbytes

    @property
    def batch_size(self) -> int:
        return self.steps.batch

    def __repr__(self) -> str:
        return f"FoveateCache(batch={self.steps.batch}, tokens={self.seen}, bytes={self.nbytes})"

    def __len__(self) -> int:
        return len(self.steps.steps)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return self.max_cache_len

    def get_max_cache_shape(self, layer_idx: int | None = None) -> int:
        return self.max_cache_len

    @property
    def max_cache_len(self) -> int:
        return -1 if self.steps.max_length is None else self.steps.max_length  # which PEFT asks for

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.seen + query_length, 0

    @property
    def is_compileable(self) -> bool:
        return False

    # of its layers, which transformers asks about one by one: none that only sums up, none that forgets on its own
    is_linear = is_sliding = is_dummy = property(lambda self: [False])

    @property
    def is_croppable(self) -> bool:
        return True

    def is_recording_past(self, layer_idx: int = 0) -> bool:
        return self.recording

    @property
    def is_initialized(self) -> bool:
        return self.seen > 0

    def update(self, *args: Any, **kwargs: Any) -> Any:
        raise FoveateError("a Foveate cache is written by the model's own steps; it has no update()")

    def fill(self, tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        """Become the cache of rows of ``tokens`` tokens, with random content: what timing needs of a long context."""
        self.steps.fill(tokens, dtype, device)
        self.seen = self.unpadded = tokens

    def become(self, other: FoveateCache) -> None:
        """Hold what ``other`` holds, a cache of the same rows and model; where a length is declared, in place."""
        self.steps.become(other.steps)
        self.seen, self.unpadded = other.seen, other.unpadded

    def reset(self) -> None:
        self.steps.reset()
        self.seen = self.unpadded = self._since_crop = 0

    def activate_past_recording(self) -> None:
        """From now on everything read since the last ``crop`` can be taken back; rings grow as they have to."""
        self.recording = True
        self.expect(0)

    def stop_recording(self) -> None:
        """Rings grow no further."""
        self.recording = False
        self._since_crop = 0

    def record_past(self, tokens: int) -> None:
        """From now on keep enough to ``crop`` the last ``tokens`` tokens; rings grow by as many."""
        self.steps.record_past(tokens)

    def save(self, path: str | Path, model: Any) -> None:
        """Write what ``model`` has read to one safetensors file: beside it first, then in its place."""
        steps = self.steps
        tensors = {}
        for index, buffer in enumerate(steps.buffers):
            data = buffer.used(steps.longest // buffer.stride)
            if data is not None:
                tensors[f"tape.{index}"] = data.detach().contiguous()
        counts = {name: np.asarray(value).tolist() for name, value in steps.counts().items()}
        header = {"batch": steps.batch, "seen": self.seen, "unpadded": self.unpadded, **counts}
        write_state(Path(path), "cache", header, tensors, model)

    @classmethod
    def load(cls, path: str | Path, model: Any) -> FoveateCache:
        """A saved cache, on the model's device.

        Raises:
            FoveateError: no such file, not a cache, or one of another model, be it the same walk with other weights.
        """
        header, tensors = read_state(Path(path), "cache", model)
        cache: FoveateCache = model.make_cache(header["batch"])
        cache.seen, cache.unpadded = header["seen"], header["unpadded"]
        cache.steps.restore(header, {int(name.removeprefix("tape.")): tensor for name, tensor in tensors.items()})
        return cache

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last ``-tokens_to_remove`` tokens of every row; positive numbers are refused."""
        if tokens_to_remove > 0:
            raise FoveateError(f"crop({tokens_to_remove}): pass a negative number, the tokens to remove")
        if -tokens_to_remove > self.unpadded:
            raise FoveateError(f"crop({tokens_to_remove}): only the last {self.unpadded} columns have no padding")
        self.steps.remove_last(-tokens_to_remove)
        self._since_crop = 0
        self.seen += tokens_to_remove
        self.unpadded += tokens_to_remove

    def append_rows(self, other: FoveateCache) -> None:
        """The rows of ``other``, a cache of the same model, after these, each to go on as it would have alone.

        Columns then no longer line up: give the calls that follow no mask of columns before, and do not ``crop``.
        """
        self.steps.append_rows(other.steps)
        self.seen = max(self.seen, other.seen)
        self.unpadded = 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.steps.take_rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.steps.take_rows(torch.arange(self.steps.batch).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        indices = torch.as_tensor(indices)
        self.steps.take_rows(indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices)
