"""Bytes that one training step needs: what autograd keeps for the backward pass, and the peak of all tensors.

Both are counted tensor by tensor, not read off the process, so they are the same in every run, on every machine of a
kind, and whatever the allocator does.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from foveate.cost import Load, predict
from foveate.errors import FoveateError


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """One step of one model: ``batch`` sequences of ``context`` tokens.

    Attributes:
        kept_bytes: kept from the forward pass for the backward, beside the parameters, each storage once.
        saved_bytes: what saved-tensor hooks are shown of it.
        predicted_kept_bytes: the same by ``foveate.cost``; None for a model that is not a walk.
        state_bytes: parameters, gradients and Adam's moments.
        peak_bytes: the most that all tensors took at one time, parameters and optimizer included. What a kernel takes
            for itself while it runs is not seen.
    """

    name: str
    batch: int
    context: int
    dtype: str
    device: str
    kept_bytes: int
    saved_bytes: int
    predicted_kept_bytes: int | None
    state_bytes: int
    peak_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_training_memory(
    model: Any, *, name: str, batch: int, context: int, bf16: bool = False, spare: bool = True
) -> TrainingMemory:
    """Take two training steps with a copy of ``model`` and count what the second needs; the model stays as it is.

    Args:
        bf16: compute under bf16 autocast.
        spare: if not, it is the model itself that is trained.

    Raises:
        FoveateError: for a batch below 1 or a context below 2.
    """
    for what, value, least in (("batch", batch, 1), ("context", context, 2)):
        if value < least:
            raise FoveateError(f"{what} is {value}; it must be at least {least}")
    step = Step((copy.deepcopy(model) if spare else model).train(), batch, context, bf16)
    step.forward().backward()  # allocates gradients and moments, and whatever the model makes once
    step.update()
    kept_bytes = step.kept_bytes()
    return TrainingMemory(
        name=name,
        batch=batch,
        context=context,
        dtype="bfloat16" if bf16 else "float32",
        device=str(model.device),
        kept_bytes=kept_bytes,
        saved_bytes=step.saved_bytes(),
        predicted_kept_bytes=_predict_kept(model, batch, context, bf16),
        state_bytes=_total_bytes(step.states()) + sum(p.nbytes for p in step.model.parameters() if p.requires_grad),
        peak_bytes=step.peak_bytes(),
    )


class Step:
    """A model, its optimizer and a batch of random tokens."""

    def __init__(self, model: Any, batch: int, context: int, bf16: bool) -> None:
        self.model = model
        self.bf16 = bf16
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        generator = torch.Generator().manual_seed(0)
        vocabulary = model.config.get_text_config().vocab_size
        self.ids_BT = torch.randint(vocabulary, (batch, context), generator=generator).to(model.device)

    def forward(self) -> Tensor:
        precision = torch.autocast(self.ids_BT.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with precision:
            return self.model(input_ids=self.ids_BT, labels=self.ids_BT, use_cache=False).loss

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def states(self) -> list[Tensor]:
        """Parameters, buffers, and the optimizer's moments: what lives from step to step."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [*self.model.parameters(), *self.model.buffers(), *moments]
        return [tensor for tensor in tensors if isinstance(tensor, Tensor)]

    def kept_bytes(self) -> int:
        # all that is alive after the forward pass, not only what saved-tensor hooks are shown: hooks of the model's own
        # may keep less, and something else
        with _LiveBytes(self.states()) as live:
            before = live.bytes
            loss = self.forward()
        return live.bytes - before - loss.nbytes

    def saved_bytes(self) -> int:
        """What saved-tensor hooks are shown, parameters apart, each storage once."""
        given = {tensor.untyped_storage().data_ptr() for tensor in self.states()}
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.forward()  # held: its graph holds what is saved, so that no address is used twice
        del loss
        return sum(saved.values())

    def peak_bytes(self) -> int:
        with _LiveBytes(self.states()) as live:
            self.forward().backward()
            self.update()
        return live.peak


class _LiveBytes(TorchDispatchMode):
    """While entered, follows the storages that operations make until they are freed. ``given`` ones count from the
    start; ``peak`` is the most bytes that were alive at once."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.alive: set[int] = set()
        self.bytes = self.peak = 0
        for tensor in given:
            self._note(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for value in tree_iter(output):
            if isinstance(value, Tensor):
                self._note(value)
        return output

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive:
            return
        self.alive.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        # a storage keeps one Python object for its whole life, so this runs when its memory is freed
        weakref.finalize(storage, self._free, key, size).atexit = False

    def _free(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.bytes -= size


def _total_bytes(tensors: Iterable[Tensor]) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _predict_kept(model: Any, batch: int, context: int, bf16: bool) -> int | None:
    spec = getattr(model.config, "spec", None)
    if spec is None:
        return None
    load = Load(
        context=context,
        vocab_size=model.config.vocab_size,
        batch=batch,
        dtype="bfloat16" if bf16 else "float32",
        tied=model.config.tie_word_embeddings,
    )
    return predict(spec, load).total.backward_bytes
