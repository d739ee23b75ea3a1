"""How models of other packages generate a token: those without a cache, and those with one of their own.

Shape legend: B batch rows, T columns, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.bench.engines import CHUNK, Engine, NotPossibleError
from foveate.spec import HierarchySpec


class RecomputingEngine(Engine):
    """A model without a cache: it reads the whole text again for every token."""

    most_tokens = 4

    def __init__(self, model: Any, batch: int, spec: HierarchySpec | None = None) -> None:
        super().__init__(model, batch, spec)
        self.ids_BT = torch.zeros((batch, 0), dtype=torch.long, device=self.device)

    @property
    def state_bytes(self) -> int:
        return 0

    def bytes_read(self, tokens: int) -> float | None:
        return float(self.weight_bytes)  # at the least

    def flops_to_read(self, tokens: int) -> float:
        return self.model.flops(self.batch, self.columns + tokens)  # of every token generated after them

    def bytes_to_hold(self, context: int) -> float:
        return self.model.forward_bytes(self.batch, context)

    def _read(self, ids_BT: Tensor, pads: np.ndarray | None) -> None:
        if pads is not None:  # padding goes to the right, where a causal model does not see it
            ids_BT = torch.stack([row.roll(-int(pad)) for row, pad in zip(ids_BT, pads, strict=True)])
        elif (self.lengths != self.columns).any():
            raise NotPossibleError("rows of different lengths go on by one --context alone where there is no cache")
        self.ids_BT = torch.cat([self.ids_BT, ids_BT], 1)

    def fork(self, tokens: int) -> Any:
        room = torch.zeros((self.batch, tokens), dtype=torch.long, device=self.device)
        ids_BT = torch.cat([self.ids_BT, room], 1)
        return {"ids": ids_BT, "lengths": torch.from_numpy(self.lengths).to(self.device)}

    def step(self, ids_B1: Tensor, state: Any) -> Tensor:
        rows = torch.arange(self.batch, device=self.device)
        state["ids"][rows, state["lengths"]] = ids_B1[:, 0]
        state["lengths"] = state["lengths"] + 1
        logits_BTV = self.model(state["ids"][:, : int(state["lengths"].max())]).logits
        return logits_BTV[rows, state["lengths"] - 1]


class XTransformersEngine(Engine):
    """x-transformers, with the keys and values that it returns."""

    def __init__(self, model: Any, batch: int, spec: HierarchySpec | None = None) -> None:
        super().__init__(model, batch, spec)
        self.cache: Any = None
        self.starts: Tensor | None = None

    @property
    def state_bytes(self) -> int:
        if self.cache is None:
            return 0
        return sum(t.nbytes for inter in self.cache.attn_intermediates for t in inter.cached_kv or ())

    def _call(self, ids_BT: Tensor, cache: Any) -> tuple[Tensor, Any]:
        # by default it keeps the newest column alone of what it is given
        age = {"cache_age": ids_BT.shape[1]} if cache is not None else {}
        logits_BTV, cache = self.model.net(
            ids_BT,
            return_intermediates=True,
            cache=cache,
            input_not_include_cache=True,
            seq_start_pos=self.starts,
            **age,
        )
        return logits_BTV[:, -1], cache

    def _read(self, ids_BT: Tensor, pads: np.ndarray | None) -> None:
        if pads is not None:
            self.starts = torch.from_numpy(pads).to(self.device)
        for chunk_BT in ids_BT.split(CHUNK, 1):
            _, self.cache = self._call(chunk_BT, self.cache)

    def _fill(self, context: int, pads: np.ndarray | None) -> bool:
        self.starts = None
        _, self.cache = self._call(torch.zeros((self.batch, 1), dtype=torch.long, device=self.device), None)
        for inter in self.cache.attn_intermediates:
            if inter.cached_kv is not None:
                shapes = [(*part.shape[:2], context, part.shape[3]) for part in inter.cached_kv]
                inter.cached_kv = tuple(torch.randn(s, dtype=self.model.dtype, device=self.device) for s in shapes)
        self.cache.cache_length = context
        self.starts = None if pads is None else torch.from_numpy(pads).to(self.device)
        return True

    def fork(self, tokens: int) -> Any:
        return {"cache": self.cache}  # every step returns a new one

    def step(self, ids_B1: Tensor, state: Any) -> Tensor:
        logits_BV, state["cache"] = self._call(ids_B1, state["cache"])
        return logits_BV


class MegaByteEngine(Engine):
    """The MegaByte of kjslag/spacebyte, with its own cache: global layers at each patch, local ones at each byte."""

    def __init__(self, model: Any, batch: int, spec: HierarchySpec | None = None) -> None:
        super().__init__(model, batch, spec)
        self.cache: dict[str, Any] = {}

    @property
    def state_bytes(self) -> int:
        tensors = [*self.cache.values(), *self.cache.get("->local-cache", {}).values()]
        return sum(value.nbytes for value in tensors if isinstance(value, Tensor))

    def bytes_read(self, tokens: int) -> float | None:
        net, element = self.model.net, self.model.dtype.itemsize
        patch = net.config.patch_size
        coarse = element * sum(p.numel() for p in net.global_blocks.parameters())
        fine = [*net.local_blocks.parameters(), *net.logits.parameters(), *net.global_to_local.parameters()]
        units = self.columns // patch
        keys = 2 * self.batch * units * element * net.config.d_model * net.config.n_layers
        return (coarse + keys) / patch + element * sum(p.numel() for p in fine)

    def _read(self, ids_BT: Tensor, pads: np.ndarray | None) -> None:
        if pads is not None:
            raise NotPossibleError(
                "it feeds longer prompts token by token, all rows in step: a token costs it what it does in even rows"
            )
        # only the first call may be longer than what is left of a patch
        parts = [ids_BT] if self.columns == 0 else ids_BT.split(1, 1)
        for part_BT in parts:
            self.model.net(part_BT, cache=self.cache)

    def fork(self, tokens: int) -> Any:
        # it writes keys and values in place, after those of the context: only what points to them is copied
        return {key: dict(value) if isinstance(value, dict) else value for key, value in self.cache.items()}

    def step(self, ids_B1: Tensor, state: Any) -> Tensor:
        logits_BTV, _ = self.model.net(ids_B1, cache=state)
        return logits_BTV[:, -1]
