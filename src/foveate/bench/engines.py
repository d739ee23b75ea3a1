"""How a kind of model generates a token: what it keeps of a context, how it goes on, and what that makes it read.

Shape legend: B batch rows, T columns, V vocabulary, K key-value heads, d head width.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from foveate.backends.cpu.packing import Int8Linear, PackedLinear
from foveate.bench.roofline import bytes_read
from foveate.cost import Load, predict
from foveate.errors import FoveateError
from foveate.hf.compiling import GRAPHS, compile_decoding
from foveate.hf.private import CACHE
from foveate.hf.stream import continue_batch
from foveate.spec import HierarchySpec

CHUNK = 2048  # columns that a model without a reader of its own is given at once
GROWTH = 2.5  # while a tape that grows by half is copied, the old one and the new are there


class NotPossibleError(FoveateError):
    """This kind of model cannot do what is to be measured."""


class Engine(ABC):
    """A model, and what it keeps of a context of ``batch`` rows.

    ``read`` lengthens the context. ``fork`` gives a state to decode from, as often as wanted: what decoding writes into
    one leaves the context as it is. Neither the state nor its copies are ever held twice where that can be avoided.

    Attributes:
        spec: the walk that costs are predicted by; None if there is none like the model.
        most_tokens: to decode in one timing, where each token costs as much as the whole context.
    """

    most_tokens: int | None = None
    generates = False  # whether the model has the generate of transformers
    rounded = False  # whether weights are int8; all else then is bf16

    def __init__(self, model: Any, batch: int, spec: HierarchySpec | None = None) -> None:
        self.model = model.eval()
        self.batch, self.spec = batch, spec
        self.device: torch.device = self.model.device
        self.lengths = np.zeros(batch, dtype=np.int64)  # tokens of each row
        self.columns = 0  # tokens and padding

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def vocab_size(self) -> int:
        return self.model.config.get_text_config().vocab_size

    @property
    def weight_bytes(self) -> int:
        return sum(p.nbytes for p in self.model.parameters())

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes kept of the context, what is reserved ahead included."""

    def bytes_read(self, tokens: int) -> float | None:
        """Bytes that a step must read, averaged over the next ``tokens``; None if unknown."""
        if self.spec is None:
            return None
        return bytes_read(self.spec, self.lengths.tolist(), tokens, self.vocab_size, self.dtype)

    def flops_to_read(self, tokens: int) -> float:
        """FLOPs of reading so many more tokens, roughly."""
        if self.spec is None:
            return 2.0 * self.batch * tokens * sum(p.numel() for p in self.model.parameters())
        load = Load(context=self.columns + tokens, vocab_size=self.vocab_size)
        return self.batch * tokens * predict(self.spec, load).total.train_flops_per_token / 3

    def bytes_to_hold(self, context: int) -> float:
        """Bytes that holding so long a context, and decoding from it, takes beyond what is held now; roughly."""
        if self.spec is None:
            return 0.0
        load = Load(context=context, vocab_size=self.vocab_size, batch=self.batch, dtype=self.dtype)
        return GROWTH * predict(self.spec, load).total.cache_bytes - self.state_bytes

    def read(self, ids_BT: Tensor, pads: np.ndarray | None = None) -> None:
        """Go on by the tokens ``ids_BT``, of which the first ``pads`` [B] are padding (in the first call alone)."""
        self._read(ids_BT, pads)
        self.columns += ids_BT.shape[1]
        self.lengths = self.lengths + ids_BT.shape[1] - (0 if pads is None else pads)

    def fill(self, context: int, pads: np.ndarray | None = None) -> bool:
        """Become the state of ``context`` columns with random content; False if this kind of state cannot."""
        if not self._fill(context, pads):
            return False
        self.columns = context
        self.lengths = np.full(self.batch, context, dtype=np.int64) - (0 if pads is None else pads)
        return True

    @abstractmethod
    def _read(self, ids_BT: Tensor, pads: np.ndarray | None) -> None: ...

    def _fill(self, context: int, pads: np.ndarray | None) -> bool:
        return False

    def compile(self) -> None:
        """Compile the steps from now on."""
        raise FoveateError(f"steps of {type(self.model).__name__} are not compiled here; compare ours and llama")

    def prepare(self, tokens: int) -> None:  # noqa: B027  # most have nothing to prepare
        """Before a context is read that will be ``tokens`` long with what is decoded after it."""

    @abstractmethod
    def fork(self, tokens: int) -> Any:
        """A state to decode ``tokens`` tokens from."""

    @abstractmethod
    def step(self, ids_B1: Tensor, state: Any) -> Tensor:
        """Logits [B, V] after one more token of each row, which the state takes in."""

    def decode(self, ids_B1: Tensor, tokens: int, state: Any) -> None:
        """Lengthen every row by ``tokens`` greedy tokens, after its last one in ``ids_B1``."""
        for _ in range(tokens):
            ids_B1 = self.step(ids_B1, state).argmax(-1, keepdim=True)

    def generate(self, ids_BT: Tensor, tokens: int, state: Any) -> None:
        """``model.generate`` of the text ``ids_BT``, of which the last column is new to the state."""
        length = {"max_new_tokens": tokens, "min_new_tokens": tokens}
        self.model.generate(ids_BT, **{CACHE: state}, do_sample=False, pad_token_id=0, **length)


class FoveateEngine(Engine):
    """Our models."""

    generates = True

    def __init__(self, model: Any, batch: int, spec: HierarchySpec | None = None) -> None:
        super().__init__(model, batch, spec)
        self.spec = self.model.config.spec
        self.cache = self.model.make_cache(batch)
        self.packed = [module for module in self.model.modules() if isinstance(module, PackedLinear)]
        self.rounded = any(isinstance(layer, Int8Linear) for layer in self.packed)
        self.compiled = False
        self.fixed: Any = None  # of compiled steps, the state that all decode from, where it was compiled for

    def compile(self) -> None:
        compile_decoding(self.model)
        self.compiled = True

    def prepare(self, tokens: int) -> None:
        if self.compiled:
            self.cache, self.fixed, self.columns = self.model.make_cache(self.batch, max_length=tokens), None, 0
            self.lengths = np.zeros(self.batch, dtype=np.int64)

    @property
    def state_bytes(self) -> int:
        return self.cache.nbytes

    @property
    def weight_bytes(self) -> int:
        return super().weight_bytes + sum(layer.nbytes for layer in self.packed)

    def bytes_read(self, tokens: int) -> float | None:
        return None if self.rounded else super().bytes_read(tokens)

    def _read(self, ids_BT: Tensor, pads: np.ndarray | None) -> None:
        mask_BT = None if pads is None else _mask(pads, ids_BT)
        self.model(ids_BT, attention_mask=mask_BT, **{CACHE: self.cache}, use_cache=True, logits_to_keep=1)

    def _fill(self, context: int, pads: np.ndarray | None) -> bool:
        self.cache.fill(context, self.model.dtype, self.device)
        if pads is not None:
            self.cache.steps.lengths = context - pads
        return True

    def decode(self, ids_B1: Tensor, tokens: int, state: Any) -> None:
        if (self.lengths == self.lengths[0]).all():
            super().decode(ids_B1, tokens, state)
            return
        for _ in continue_batch(self.model, state, ids_B1, self.lengths, tokens, _greedy, ()):
            pass

    def fork(self, tokens: int) -> Any:
        if self.compiled:
            self.fixed = self.fixed if self.fixed is not None else copy.deepcopy(self.cache)
            self.fixed.become(self.cache)
            return self.fixed
        if not (self.lengths == self.lengths[0]).all():
            return copy.deepcopy(self.cache)  # rows that are done will leave it
        # tapes that overwrite nothing are shared: what one copy writes past a row's end the next writes again
        shared = {id(tape): tape for tape in self.cache.steps.buffers if not tape.forgets}
        return copy.deepcopy(self.cache, shared)

    def step(self, ids_B1: Tensor, state: Any) -> Tensor:
        return self.model(ids_B1, **{CACHE: state}, use_cache=True).logits[:, -1]


class HubEngine(Engine):
    """A causal language model of transformers with a cache that grows by concatenation."""

    generates = True

    def __init__(self, model: Any, batch: int, spec: HierarchySpec | None = None) -> None:
        super().__init__(model, batch, spec)
        self.pads: np.ndarray | None = None
        self.cache: Any = self._make_cache()

    def _make_cache(self) -> Any:
        return DynamicCache(config=self.model.config)

    @property
    def state_bytes(self) -> int:
        layers = (layer for layer in self.cache.layers if layer.is_initialized)
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)

    def _read(self, ids_BT: Tensor, pads: np.ndarray | None) -> None:
        self.pads = pads if self.columns == 0 else self.pads
        start = self.columns
        for chunk_BT in ids_BT.split(CHUNK, 1):
            self._call(chunk_BT, self.cache, start, logits_to_keep=1)
            start += chunk_BT.shape[1]

    def _call(self, ids_BT: Tensor, cache: Any, start: int, **options: Any) -> Tensor:
        if self.pads is not None:
            end = start + ids_BT.shape[1]
            options["attention_mask"] = _mask(self.pads, ids_BT, end)
            positions = torch.arange(start, end) - torch.from_numpy(self.pads)[:, None]
            options["position_ids"] = positions.clamp(min=0).to(self.device)
        return self.model(ids_BT, **{CACHE: cache}, use_cache=True, **options).logits[:, -1]

    def _fill(self, context: int, pads: np.ndarray | None) -> bool:
        config = self.model.config.get_text_config()
        kv_heads = getattr(config, "num_key_value_heads", None)
        if not kv_heads:
            return False
        self.cache, self.pads = self._make_cache(), pads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        for layer in range(config.num_hidden_layers):
            shape = (self.batch, kv_heads, context, width)
            keys, values = (torch.randn(shape, dtype=self.model.dtype, device=self.device) for _ in range(2))
            self.cache.update(keys, values, layer)
        return True

    def fork(self, tokens: int) -> Any:
        # every step makes new tensors of keys and values, so a copy of what points to them is enough
        twin = copy.copy(self.cache)
        twin.layers = [copy.copy(layer) for layer in self.cache.layers]
        return twin

    def step(self, ids_B1: Tensor, state: Any) -> Tensor:
        start = 0 if self.pads is None else int(state.get_seq_length())
        return self._call(ids_B1, state, start)

    def generate(self, ids_BT: Tensor, tokens: int, state: Any) -> None:
        if self.pads is not None:
            raise NotPossibleError("rows of different lengths are timed in a bare loop, without --generate")
        super().generate(ids_BT, tokens, state)


class StaticHubEngine(HubEngine):
    """The same with transformers' static cache, made just as long as it has to be."""

    capacity = 1
    forward: Any = None  # compiled

    def compile(self) -> None:
        mode = GRAPHS if self.device.type == "cuda" else None
        self.forward = torch.compile(self.model.forward, mode=mode, dynamic=False)

    def step(self, ids_B1: Tensor, state: Any) -> Tensor:
        if self.forward is None:
            return super().step(ids_B1, state)
        return self.forward(ids_B1, **{CACHE: state}, use_cache=True).logits[:, -1].clone()

    def _make_cache(self) -> Any:
        return StaticCache(config=self.model.config, max_cache_len=self.capacity)

    def prepare(self, tokens: int) -> None:
        self.capacity = tokens
        self.cache, self.columns = self._make_cache(), 0
        self.lengths = np.zeros(self.batch, dtype=np.int64)

    def fork(self, tokens: int) -> Any:
        twin = super().fork(tokens)
        for layer in twin.layers:  # keys and values past a row's end are written again; how many there are is not
            layer.cumulative_length = layer.cumulative_length.clone()
        return twin


def _greedy(ids_B1: Tensor, logits_BV: Tensor) -> Tensor:
    return logits_BV.argmax(-1, keepdim=True)


def _mask(pads: np.ndarray, ids_BT: Tensor, columns: int | None = None) -> Tensor:
    """[B, columns], 1 from each row's first real token on."""
    column = torch.arange(columns or ids_BT.shape[1])
    return (column >= torch.from_numpy(pads)[:, None]).long().to(ids_BT.device)
