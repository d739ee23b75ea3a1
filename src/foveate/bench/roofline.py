"""The least time a token can take: the bytes it must read, at the speed this machine reads them in a matrix product.

Shape legend: O outputs, I inputs of a weight matrix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from foveate.backends.cpu.linear import is_for_onednn, onednn_product
from foveate.cost import DTYPE_BYTES, Load, predict
from foveate.spec import Expand, HierarchySpec, Level

CPU_BYTES, GPU_BYTES = 1 << 28, 1 << 30  # of the matrices of a measurement: beyond any cache
PEAK_SIZE = {"cpu": 2048, "cuda": 8192}  # of the square matrices whose product shows a device's peak


class Bandwidth:
    """Times plain matrix-vector products over matrices of a level's own shapes, more of them than a cache holds."""

    def __init__(self, level: Level, dtype: torch.dtype, device: torch.device) -> None:
        D, F, d = level.width, level.feed_forward, level.head_dim
        shapes = (((level.heads + 2 * level.kv_heads) * d, D), (D, level.heads * d), (2 * F, D), (D, F))
        of_a_layer = sum(outputs * inputs for outputs, inputs in shapes) * dtype.itemsize
        layers = -(-(GPU_BYTES if device.type == "cuda" else CPU_BYTES) // of_a_layer)
        # written, not zeros: pages that were never written may all be one
        self._weights_OI = [torch.full(shape, 0.01, dtype=dtype, device=device) for shape in shapes * layers]
        self._stored_IO = [weight.t().contiguous() for weight in self._weights_OI]
        self._inputs = {inputs: torch.ones(1, 1, inputs, dtype=dtype, device=device) for _, inputs in shapes}
        self._bytes = of_a_layer * layers
        self.measure()

    def measure(self) -> float:
        """Bytes per second of one pass over the matrices, stored by rows or by columns, whichever is read faster."""
        return max(self._pass(self._weights_OI), self._pass([stored_IO.t() for stored_IO in self._stored_IO]))

    def _pass(self, weights_OI: list[Tensor]) -> float:
        device = weights_OI[0].device
        synchronize(device)
        start = time.perf_counter()
        for weight_OI in weights_OI:
            linear(self._inputs[weight_OI.shape[1]], weight_OI)
        synchronize(device)
        return self._bytes / (time.perf_counter() - start)


class MatmulPeak:
    """Times a large matrix product: the most FLOPs per second that a model can hope for."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        size = PEAK_SIZE.get(device.type, PEAK_SIZE["cpu"])
        self._a, self._b = (torch.full((size, size), 0.01, dtype=dtype, device=device) for _ in range(2))
        self.measure()

    def measure(self) -> float:
        """FLOPs per second of one product, by torch or by what our layers compute it with, whichever is faster."""
        ways: list[Callable[[Tensor, Tensor], Tensor]] = [torch.matmul]
        if is_for_onednn(self._a, self._b):
            ways.append(onednn_product)
        return max(self._speed(way) for way in ways)

    def _speed(self, way: Callable[[Tensor, Tensor], Tensor]) -> float:
        synchronize(self._a.device)
        start = time.perf_counter()
        way(self._a, self._b)
        synchronize(self._a.device)
        return 2 * len(self._a) ** 3 / (time.perf_counter() - start)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def firings(spec: HierarchySpec, lengths: Sequence[int], tokens: int) -> dict[int, float]:
    """By stride, how often per token its layers are called while rows of ``lengths`` tokens gain ``tokens`` more.

    A layer is called once for all rows in which it has something to do.
    """
    after = np.asarray(lengths)[:, None] + np.arange(1, tokens + 1)
    return {stride: float((after % stride == 0).any(0).mean()) for stride in spec.strides}


def bytes_read(spec: HierarchySpec, lengths: Sequence[int], tokens: int, vocab_size: int, dtype: str) -> float:
    """Bytes of weights and state that a decoding step must read, averaged over ``tokens`` steps.

    A level's weights are read when any row calls it, its keys and values for each row that does. What attention reads
    to expand is counted at the finer level; the embedding is read whole, by the head.
    """
    element = DTYPE_BYTES[dtype]
    cost = predict(spec, Load(context=max(lengths), vocab_size=vocab_size, dtype=dtype))
    calls = firings(spec, lengths, tokens)
    total = cost.ends.params * element + sum(
        level.part.params * element * calls[level.level.stride] for level in cost.levels
    )
    middle = [length + tokens // 2 for length in lengths]
    for run in spec.runs:
        level = spec.level(run.stride)
        keys = sum(run.attention.keys_read(max(length // run.stride, 1)) for length in middle)
        total += run.layers * 2 * level.kv_heads * level.head_dim * element * keys / run.stride
    if spec.expanding == "attention":
        for step in spec.steps:
            if isinstance(step, Expand):
                units = sum(length // step.source for length in middle)
                total += 2 * spec.level(step.stride).width * element * units / step.stride
    return total
