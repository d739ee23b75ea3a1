"""What zoom is measured against, over a whole text at once: full attention, sinks and window, pages, heavy hitters.

Each is written for fairness, not speed: sinks are read by all, and the query heads of a key head share what they open
by the same rule as zoom's (the mean of their softmax over near text and what may be opened).

Shape legend: B rows, H query heads, K key heads, G query heads of a key head, C queries, T tokens, P pages, n kept.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

import foveate
from foveate.hf.zoom_budget import load_plans

NAME = "foveate_rival"
AT_ONCE = 256
STEP = 16  # tokens after which heavy hitters evict

current: dict[str, Any] = {"kind": "full"}
dense_layers: set[int] = set()


def read_methods(path: str, only: list[str] | None) -> dict[str, dict[str, Any]]:
    with Path(path).open(encoding="utf-8") as file:
        methods: dict[str, dict[str, Any]] = yaml.safe_load(file)
    unknown = [name for name in only or [] if name not in methods]
    if unknown:
        raise SystemExit(f"{path} has no {unknown[0]!r}; it has {', '.join(methods)}")
    return {name: settings for name, settings in methods.items() if not only or name in only}


class reading:  # noqa: N801  # used as a function
    """The model reads by a method while this context lasts."""

    def __init__(self, model: Any, settings: dict[str, Any], dense: list[int]) -> None:
        self.model, self.settings, self.dense = model, settings, dense
        self.zoomed: Any = None

    def __enter__(self) -> None:
        if self.settings["kind"] == "zoom":
            self.zoomed = foveate.zoom(self.model, plans_of(self.settings, self.model), dense=self.dense)
            return
        AttentionInterface.register(NAME, forward)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, lambda *args, **kwargs: None)
        self.before = self.model.config._attn_implementation
        self.model.set_attn_implementation(NAME)
        current.clear()
        current.update(self.settings)
        dense_layers.clear()
        dense_layers.update(self.dense)

    def __exit__(self, *error: object) -> None:
        if self.zoomed is not None:
            self.zoomed.undo()
        else:
            self.model.set_attn_implementation(self.before)


def plans_of(settings: dict[str, Any], model: Any) -> list[Any]:
    """A plan per layer: of a file, or the same for all."""
    if "plans" in settings:
        return load_plans(settings["plans"])
    plan = {name: value for name, value in settings.items() if name != "kind"}
    return [foveate.ZoomPlan(**plan)] * int(model.config.num_hidden_layers)


def reads(settings: dict[str, Any], position: int) -> tuple[float, float]:
    """Keys, and summaries to find them, that the query at ``position`` reads per key head."""
    settings = dict(settings)
    kind = settings.pop("kind")
    if kind == "zoom" and "plans" in settings:  # of a mean key head
        plans = [plan for plan in load_plans(settings["plans"]) if plan is not None]
        each = [replace(plan, opened=n).reads(position) for plan in plans for n in plan.opened]  # type: ignore[union-attr]
        keys, summaries = (sum(counts) / len(each) for counts in zip(*each, strict=True))
        return keys, summaries
    if kind == "zoom":
        return foveate.ZoomPlan(**settings).reads(position)
    if kind == "pages":
        far = max(0, (position + 1 - settings["near"] - settings["sinks"]) // 16 * 16)
        pages = far // settings["size"]
        return position + 1 - far + min(pages, settings["opened"]) * settings["size"], 2 * pages
    most = {"window": settings.get("window", 0) + settings.get("sinks", 0), "hitters": settings.get("budget", 0)}
    return min(position + 1, most.get(kind, position + 1)), 0


def forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    settings = {"kind": "full"} if module.layer_idx in dense_layers else current
    if settings["kind"] == "hitters":
        out = hitters(query, key, value, scaling, settings)
    else:
        out = chosen(query, key, value, scaling, settings)
    return out.transpose(1, 2).contiguous(), None


def chosen(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float, settings: dict[str, Any]) -> Tensor:
    """Full, window and pages: a mask over all keys, some queries at a time."""
    B, H, T, d = q_BHTd.shape
    K = k_BKTd.shape[1]
    column = torch.arange(T, device=q_BHTd.device)
    outs = []
    for a in range(0, T, AT_ONCE):
        b = min(T, a + AT_ONCE)
        q_BKGCd = q_BHTd[:, :, a:b].reshape(B, K, H // K, b - a, d) * scale
        s_BKGCT = torch.einsum("bkgcd,bktd->bkgct", q_BKGCd, k_BKTd[:, :, :b])
        position = torch.arange(a, b, device=q_BHTd.device)[:, None]
        seen = column[:b] <= position
        if settings["kind"] == "window":
            seen = seen & ((column[:b] > position - settings["window"]) | (column[:b] < settings["sinks"]))
        if settings["kind"] == "pages":
            seen = pages_seen(q_BKGCd, s_BKGCT, k_BKTd, position, seen, settings)
        p = torch.softmax(s_BKGCT.masked_fill(~seen, -math.inf), -1)
        outs.append(torch.einsum("bkgct,bktd->bkgcd", p, v_BKTd[:, :, :b]).reshape(B, H, b - a, d))
    return torch.cat(outs, 2)


def pages_seen(
    q_BKGCd: Tensor, s_BKGCT: Tensor, k_BKTd: Tensor, position: Tensor, causal: Tensor, settings: dict[str, Any]
) -> Tensor:
    """Sinks, near text, and the pages with the largest upper bound on a key's score: Quest's choice, per query."""
    size, sinks = settings["size"], settings["sinks"]
    end = causal.shape[-1]
    far_C1 = ((position + 1 - settings["near"] - sinks) // 16 * 16).clamp(min=0)
    slot_T = torch.arange(end, device=position.device) - sinks
    certain = causal & ((slot_T >= far_C1) | (slot_T < 0))
    P = max(0, end - sinks) // size
    if not P:
        return certain
    pages = k_BKTd[:, :, sinks : sinks + P * size].unflatten(2, (P, size))
    low, high = pages.amin(3), pages.amax(3)
    bound_BKGCP = torch.einsum("bkgcd,bkpd->bkgcp", q_BKGCd.clamp(min=0), high)
    bound_BKGCP = bound_BKGCP + torch.einsum("bkgcd,bkpd->bkgcp", q_BKGCd.clamp(max=0), low)
    able = (torch.arange(1, P + 1, device=position.device) * size <= far_C1)[None, None]
    near = s_BKGCT.masked_fill(~certain, -math.inf).logsumexp(-1, keepdim=True)
    logits = torch.cat((near, bound_BKGCP.masked_fill(~able[:, :, None], -math.inf)), -1)
    share_BKCP = torch.softmax(logits, -1)[..., 1:].mean(2).masked_fill(~able, -1)
    opened = torch.zeros_like(share_BKCP, dtype=torch.bool)
    opened.scatter_(-1, share_BKCP.topk(min(P, settings["opened"]), -1).indices, True)
    opened = (opened & able).repeat_interleave(size, -1)
    opened = torch.nn.functional.pad(opened, (sinks, end - sinks - P * size))
    return certain | opened[:, :, None]


def hitters(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float, settings: dict[str, Any]) -> Tensor:
    """H2O: of the budget half is the newest keys, half those with most attention so far; the rest is gone for good."""
    B, H, T, d = q_BHTd.shape
    K = k_BKTd.shape[1]
    budget = settings["budget"] - STEP // 2  # between evictions it grows by STEP
    q_BKGTd = q_BHTd.reshape(B, K, H // K, T, d) * scale
    kept_BKn = torch.zeros(B, K, 0, dtype=torch.long, device=q_BHTd.device)
    mass_BKn = torch.zeros(B, K, 0, device=q_BHTd.device)
    outs = []
    for a in range(0, T, STEP):
        b = min(T, a + STEP)
        new = torch.arange(a, b, device=q_BHTd.device)
        kept_BKn = torch.cat((kept_BKn, new.expand(B, K, -1)), -1)
        mass_BKn = torch.nn.functional.pad(mass_BKn, (0, b - a))
        index = kept_BKn[..., None].expand(-1, -1, -1, d)
        k, v = k_BKTd.gather(2, index), v_BKTd.gather(2, index)
        s = q_BKGTd[:, :, :, a:b] @ k.transpose(-1, -2)[:, :, None]
        p = torch.softmax(s.masked_fill((kept_BKn[:, :, None] > new[:, None])[:, :, None], -math.inf), -1)
        outs.append((p @ v[:, :, None]).reshape(B, H, b - a, d))
        mass_BKn = mass_BKn + p.sum((2, 3))
        if kept_BKn.shape[-1] > budget:
            certain = (kept_BKn < settings["sinks"]) | (kept_BKn >= b - budget // 2)
            best = mass_BKn.masked_fill(certain, math.inf).topk(budget, -1).indices.sort(-1).values
            kept_BKn, mass_BKn = kept_BKn.gather(-1, best), mass_BKn.gather(-1, best)
    return torch.cat(outs, 2)
