"""A layer's weights under our names: fused, permuted, and with what can be folded into them.

Shape legend: H heads, K key-value heads, d head width, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveate.spec import Rope

NAMES = ("attention_norm", "attention_out_norm", "mlp_norm", "mlp_out_norm")


@dataclass(frozen=True, kw_only=True)
class Folding:
    """What the weights of a layer take in.

    Attributes:
        heads: H, K and d.
        rope: by which channels of a head are put in pairs (i, i + d/2), those that do not turn last of each half.
        turned: factor on the scores of what turns.
        queries: factor on all queries.
        centred: norms multiply by 1 + w.
    """

    heads: tuple[int, int, int]
    rope: Rope | None
    turned: float = 1.0
    queries: float = 1.0
    centred: bool = False

    def order(self) -> Tensor | None:
        """[d]: which channel stands where."""
        d = self.heads[2]
        rotated = d if self.rope is None or self.rope.rotated is None else self.rope.rotated
        if rotated == d:
            return None
        half, rest = rotated // 2, (d - rotated) // 2
        channel = torch.arange(d)
        first, second, others = channel[:half], channel[half:rotated], channel[rotated:]
        return torch.cat((first, others[:rest], second, others[rest:]))

    def factors(self) -> Tensor:
        """[d]: of a query's channels, as they stood before ``order``."""
        d = self.heads[2]
        factors = torch.full((d,), self.queries, dtype=torch.float64)
        if self.rope is not None:
            factors[: self.rope.rotated or d] *= self.turned
        return factors

    def queried(self, rows: Tensor) -> Tensor:
        """What queries are multiplied by, or what is added to them, [H·d or d, …], with factors and order."""
        factors = self.factors()
        if bool((factors == 1).all()):
            return self.ordered(rows)
        by_head = rows.unflatten(0, (-1, self.heads[2]))
        factors = factors.to(rows.device).view(1, -1, *[1] * (rows.dim() - 1))
        return self.ordered((by_head.double() * factors).to(rows.dtype).flatten(0, 1))

    def ordered(self, rows: Tensor) -> Tensor:
        order = self.order()
        if order is None:
            return rows
        return rows.unflatten(0, (-1, self.heads[2]))[:, order.to(rows.device)].flatten(0, 1)

    def norm(self, weight: Tensor) -> Tensor:
        return weight + 1 if self.centred else weight


def read_layer(
    old: dict[str, Tensor], of: str, norms: tuple[str | None, ...], folding: Folding, *, fused: bool
) -> dict[str, Tensor]:
    """The weights of the layer ``of`` under the names of ``foveate.model.layers.Layer``."""
    new = {
        f"{ours}.weight": folding.norm(old[f"{of}.{its}.weight"])
        for ours, its in zip(NAMES, norms, strict=True)
        if its is not None
    }
    normalised = f"{of}.self_attn.q_norm.weight" in old  # factors then go into the norm, which would undo them
    for kind in ("weight", "bias"):
        if fused and kind == "weight":
            H, K, d = folding.heads
            q, k, v = old[f"{of}.self_attn.qkv_proj.weight"].split((H * d, K * d, K * d))
            new["gate_up_proj.weight"] = old[f"{of}.mlp.gate_up_proj.weight"]
        elif f"{of}.self_attn.q_proj.{kind}" in old:
            q, k, v = (old[f"{of}.self_attn.{name}_proj.{kind}"] for name in "qkv")
        else:
            continue
        q = folding.ordered(q) if normalised else folding.queried(q)
        new[f"qkv_proj.{kind}"] = torch.cat((q, folding.ordered(k), v))
    if normalised:
        new["q_norm.weight"] = folding.queried(folding.norm(old[f"{of}.self_attn.q_norm.weight"]))
        new["k_norm.weight"] = folding.ordered(folding.norm(old[f"{of}.self_attn.k_norm.weight"]))
    for kind in ("weight", "bias"):
        if f"{of}.mlp.gate_proj.{kind}" in old:
            new[f"gate_up_proj.{kind}"] = torch.cat([old[f"{of}.mlp.{name}_proj.{kind}"] for name in ("gate", "up")])
        for ours, its in (("o_proj", "self_attn.o_proj"), ("down_proj", "mlp.down_proj")):
            if f"{of}.{its}.{kind}" in old:
                new[f"{ours}.{kind}"] = old[f"{of}.{its}.{kind}"]
    return new


def read_ends(old: dict[str, Tensor], c: Any, *, centred: bool, scaled: bool) -> dict[str, Tensor]:
    """Embedding, last norm and head. A scaled embedding tied to the head has the norm before that divided."""
    embedding, norm, head = (old[name] for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"))
    norm = norm + 1 if centred else norm
    if scaled:
        scale = c.hidden_size**0.5
        embedding = (embedding.double() * scale).to(embedding.dtype)
        if c.tie_word_embeddings:
            head, norm = embedding, (norm.double() / scale).to(norm.dtype)
    return {"model.embed_tokens.weight": embedding, "model.decoder.norm.weight": norm, "lm_head.weight": head}
