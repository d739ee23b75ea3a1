"""Products by oneDNN as operators that a compiler takes as they are.

It would trace into oneDNN's own, and refuse them for weights that are no constants.

Shape legend: N outputs, D inputs.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LIBRARY = torch.library.Library("foveate", "DEF")
LIBRARY.define("product(Tensor x, Tensor weight) -> Tensor")
LIBRARY.define("packed_product(Tensor x, int layer, int outputs) -> Tensor")

_layers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def onednn(x: Tensor, weight_ND: Tensor) -> Tensor:
    """``x @ weight_ND.t()``, [..., N], of a weight as it is, or as oneDNN packs it."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight_ND, None, "none", [], "")
    return out


def number_of(layer: Any) -> int:
    """A number by which ``packed_product`` finds a layer: an operator takes no weight that no tensor can stand for."""
    number = next(_numbers)
    _layers[number] = layer
    return number


def _packed(x: Tensor, layer: int, outputs: int) -> Tensor:
    found: Callable[[Tensor], Tensor] = _layers[layer].product
    return found(x)


LIBRARY.impl("product", onednn, "CPU")
LIBRARY.impl("packed_product", _packed, "CPU")
torch.library.register_fake(
    "foveate::product", lambda x, weight: x.new_empty(*x.shape[:-1], weight.shape[0]), lib=LIBRARY
)
torch.library.register_fake(
    "foveate::packed_product", lambda x, layer, outputs: x.new_empty(*x.shape[:-1], outputs), lib=LIBRARY
)
product: Any = torch.ops.foveate.product.default
packed_product: Any = torch.ops.foveate.packed_product.default
