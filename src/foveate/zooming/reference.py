"""The slow, obvious counterpart of zoom attention: one query at a time, from the definition. The tests' oracle.

Shape legend: R rows, H query heads, K key heads, T tokens, d head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveate.spec.zoom_plan import ZoomPlan


def reference(q_RHTd: Tensor, k_RKTd: Tensor, v_RKTd: Tensor, plan: ZoomPlan, scale: float) -> Tensor:
    """What every token of every row sees, [R, H, T, d]."""
    rows = []
    for q_HTd, k_KTd, v_KTd in zip(q_RHTd, k_RKTd, v_RKTd, strict=True):
        group = len(q_HTd) // len(k_KTd)
        heads = []
        for head, (k_Td, v_Td) in enumerate(zip(k_KTd, v_KTd, strict=True)):
            q_GTd = q_HTd[head * group : (head + 1) * group]
            opened = plan.opened if isinstance(plan.opened, int) else plan.opened[head]
            outs = [_one(q_GTd[:, t], k_Td, v_Td, t, plan, opened, scale) for t in range(q_GTd.shape[1])]
            heads.append(torch.stack(outs, 1))
        rows.append(torch.cat(heads))
    return torch.stack(rows)


def opened_keys(
    q_Gd: Tensor, k_Td: Tensor, t: int, plan: ZoomPlan, opened: int, scale: float
) -> tuple[list[int], list[list[int]]]:
    """Tokens that the query at ``t`` reads as they are, and the groups it reads as thumbnails."""
    far = max(0, (t + 1 - plan.near - plan.sinks) // plan.step * plan.step)
    near = list(range(min(plan.sinks, t + 1))) + list(range(plan.sinks + far, t + 1))
    candidates: list[list[int]] = []
    for block in range(far // plan.block):
        first = plan.sinks + block * plan.block
        candidates.append(split(k_Td, list(range(first, first + plan.block)), plan.groups[-1]))
    thumbnails: list[list[int]] = []
    for depth, size in enumerate(plan.levels):
        candidates = [g[i : i + size] for g in candidates for i in range(0, len(g), size)]
        if size == plan.step:
            tail = range(plan.sinks + far // plan.block * plan.block, plan.sinks + far, size)
            candidates += [list(range(first, first + size)) for first in tail]
        limit = opened if depth == len(plan.keep) else plan.keep[depth]
        if limit is None or limit >= len(candidates):
            continue
        s_Gn = torch.stack([scale * q_Gd @ k_Td[g].mean(0) + math.log(len(g)) for g in candidates], 1)
        if plan.spread:
            spread_n = torch.stack([k_Td[g].detach().var(0, unbiased=False).mean() for g in candidates])
            s_Gn = s_Gn + plan.spread / 2 * (scale * q_Gd).square().sum(-1, keepdim=True) * spread_n
        s_Gm = torch.cat((s_Gn, scale * q_Gd @ k_Td[near].T), 1)
        share = torch.softmax(s_Gm, 1)[:, : len(candidates)].mean(0).tolist()
        best = sorted(range(len(candidates)), key=lambda n: share[n], reverse=True)[:limit]
        if size <= plan.thumbnails:
            thumbnails += [g for n, g in enumerate(candidates) if n not in best]
        candidates = [candidates[n] for n in best]
    return near + [token for g in candidates for token in g], thumbnails


def split(k_Td: Tensor, tokens: list[int], smallest: int) -> list[int]:
    """Tokens in the order of a balanced tree of median splits along first principal directions."""
    if len(tokens) <= smallest:
        return tokens
    x = k_Td[tokens].detach()
    x = x - x.mean(0)
    along = x[(x * x).sum(1).argmax()]
    for _ in range(4):
        along = x.T @ (x @ along)
        along = along / along.norm()
    place = (x @ along).argsort(stable=True).tolist()
    half = len(tokens) // 2
    lower, upper = ([tokens[i] for i in part] for part in (place[:half], place[half:]))
    return split(k_Td, lower, smallest) + split(k_Td, upper, smallest)


def _one(q_Gd: Tensor, k_Td: Tensor, v_Td: Tensor, t: int, plan: ZoomPlan, opened: int, scale: float) -> Tensor:
    tokens, thumbnails = opened_keys(q_Gd, k_Td, t, plan, opened, scale)
    logits = [scale * q_Gd @ k_Td[tokens].T]
    values = [v_Td[tokens]]
    for g in thumbnails:
        logits.append(scale * q_Gd @ k_Td[g].mean(0)[:, None] + math.log(len(g)))
        values.append(v_Td[g].mean(0)[None])
    return torch.softmax(torch.cat(logits, 1), 1) @ torch.cat(values)
