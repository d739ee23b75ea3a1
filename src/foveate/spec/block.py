"""What the layers of a model are made of, beside their shape and how they look back; the families differ in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from foveate.errors import FoveateError, shown

NORMS = ("pre", "post", "both")
QK_NORMS = (None, "head", "all")
BIASES = ("qkv", "o", "mlp")
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh")


@dataclass(frozen=True, kw_only=True)
class Block:
    """The make of every layer.

    Attributes:
        norms: before each of the two branches (``pre``), on what it gives (``post``), or ``both``.
        qk_norm: of queries and keys before they are rotated: ``head`` by head, or over ``all`` heads together.
        biases: which projections have one: ``qkv``, ``o``, ``mlp``.
        activation: of the gate.
        soft_cap: scores s become soft_cap · tanh(s / soft_cap).
    """

    norms: str = "pre"
    qk_norm: str | None = None
    biases: tuple[str, ...] = ()
    activation: str = "silu"
    soft_cap: float | None = None

    def __post_init__(self) -> None:
        if self.norms not in NORMS:
            raise FoveateError(f"norms is {shown(self.norms)}; choose one of {', '.join(NORMS)}")
        if self.qk_norm not in QK_NORMS:
            raise FoveateError(f"qk_norm is {shown(self.qk_norm)}; choose null, head or all")
        if not isinstance(self.biases, list | tuple) or any(bias not in BIASES for bias in self.biases):
            raise FoveateError(f"biases is {shown(self.biases)}; choose some of {', '.join(BIASES)}")
        object.__setattr__(self, "biases", tuple(bias for bias in BIASES if bias in self.biases))
        if self.activation not in ACTIVATIONS:
            raise FoveateError(f"hidden_act is {shown(self.activation)}; choose one of {', '.join(ACTIVATIONS)}")
        check_cap("attn_logit_softcapping", self.soft_cap)

    @property
    def stream_norms(self) -> int:
        """Norms of the stream's width in a layer."""
        return 4 if self.norms == "both" else 2


def check_cap(name: str, cap: object) -> None:
    usable = isinstance(cap, int | float) and not isinstance(cap, bool) and 0 < cap <= 1e9 and math.isfinite(cap)
    if cap is not None and not usable:
        raise FoveateError(f"{name} is {shown(cap)}; it must be a number above 0 or null")


PLAIN = Block()
