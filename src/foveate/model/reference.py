"""The architecture as its definition reads: one row, one unit at a time, without cache, masks or batches.

It is what the fast modules are tested against, forward and gradients, and takes its weights from them. Slow.

Shape legend: T tokens, D width, H heads, K key-value heads, d head width, L keys seen, F feed-forward width, k finer
units per coarser one.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from foveate.model.attention import Heads
from foveate.model.decoder import Decoder
from foveate.model.fovea import FoveaAttention, GroupPool
from foveate.model.layers import Layer, Stack
from foveate.model.resample import Downsample, Lookup, Upsample
from foveate.model.zoom import ZoomAttention
from foveate.spec import Fovea
from foveate.zooming.reference import reference as zoom_reference

Stream = list[
    Tensor
]  # one tensor for each unit of a level, oldest first: the units themselves [D], or their keys [K, d]


def reference(decoder: Decoder, x_TD: Tensor) -> Tensor:
    """Features [T, D] of one sequence of at least one token, differentiable in ``x_TD`` and in all parameters."""
    streams: dict[int, Stream] = {1: list(x_TD)}
    for step in decoder.steps:
        if isinstance(step, Stack):
            streams[step.stride] = run(step, streams[step.stride])
        elif isinstance(step, Downsample):
            streams[step.stride] = pool(step, streams[step.fine.stride])
        elif isinstance(step, Upsample):
            streams[step.stride] = expand(step, streams[step.stride], streams[step.coarse.stride])
        else:
            raise NotImplementedError(type(step).__name__)
    return torch.stack([normalise(decoder.norm, unit) for unit in streams[1]])


def run(step: Stack, units: Stream) -> Stream:
    for layer in step.layers:
        units = transformer_layer(cast(Layer, layer), units, step.rotary.speeds)
    return units


def transformer_layer(layer: Layer, units: Stream, speeds: tuple[float, ...]) -> Stream:
    """Unit t becomes x + attention(x) and then that + a gated MLP of that, each with norms before or after it."""
    H, K = layer.attention.heads, layer.attention.kv_heads
    d = layer.all_heads[1]
    queries, keys, values = [], [], []
    for unit in units:
        qkv = project(layer.qkv_proj, normalise(layer.attention_norm, unit) if layer.before else unit)
        query_Hd, key_Kd, value_Kd = qkv.view(H + 2 * K, d).split((H, K, K))
        if layer.qk_norm == "head":
            query_Hd = torch.stack([normalise(layer.q_norm, head) for head in query_Hd])
            key_Kd = torch.stack([normalise(layer.k_norm, head) for head in key_Kd])
        elif layer.qk_norm == "all":
            query_Hd = normalise(layer.q_norm, query_Hd.flatten()).view(H, d)
            key_Kd = normalise(layer.k_norm, key_Kd.flatten()).view(K, d)
        queries.append(query_Hd)
        keys.append(key_Kd)
        values.append(value_Kd)
    out = []
    zoomed: Stream = []
    if units and isinstance(layer.attention, ZoomAttention):
        zoomed = zoom(layer.attention, queries, keys, values, speeds)
    for t, unit in enumerate(units):
        if zoomed:
            y = zoomed[t]
        else:
            y = look_back(layer.attention, t, queries[t], keys, values, speeds)
        y = project(layer.o_proj, y)
        x = unit + (normalise(layer.attention_out_norm, y) if layer.after else y)
        gate, up = project(layer.gate_up_proj, normalise(layer.mlp_norm, x) if layer.before else x).chunk(2)
        y = project(layer.down_proj, layer.activate(gate) * up)
        out.append(x + (normalise(layer.mlp_out_norm, y) if layer.after else y))
    return out


def look_back(
    attention: Heads, t: int, query_Hd: Tensor, keys: Stream, values: Stream, speeds: tuple[float, ...]
) -> Tensor:
    """What unit t gets from what it attends to, [H·d]."""
    positions, keys_LKd, values_LKd = seen(attention, t, keys, values)
    query_Hd = rotate(query_Hd[None], [t], speeds)[0]
    return attend(query_Hd, rotate(keys_LKd, positions, speeds), values_LKd, soft_cap=attention.soft_cap)


def zoom(
    attention: ZoomAttention, queries: Stream, keys: Stream, values: Stream, speeds: tuple[float, ...]
) -> list[Tensor]:
    """What each unit gets, [H·d]: which groups are opened depends on what the keys are, not on where they stand."""
    positions: list[float] = [float(t) for t in range(len(keys))]
    q_HTd, k_KTd = (rotate(torch.stack(part), positions, speeds).transpose(0, 1) for part in (queries, keys))
    v_KTd = torch.stack(values).transpose(0, 1)
    out = zoom_reference(q_HTd[None], k_KTd[None], v_KTd[None], attention.zoom.plan, attention.head_dim**-0.5)
    return [x_Hd.flatten() for x_Hd in out[0].unbind(1)]


def project(layer: nn.Linear, x: Tensor) -> Tensor:
    y = layer.weight @ x
    return y if layer.bias is None else y + layer.bias


def seen(attention: Heads, t: int, keys: Stream, values: Stream) -> tuple[list[float], Tensor, Tensor]:
    """What unit t attends to, as its kind says: positions [L], keys [L, K, d] before rotation, values [L, K, d].

    ``keys`` and ``values`` are those of all units, each [K, d]. A group stands at its middle.
    """
    positions, found = [], []
    for first, units in attention.kind.seen(t):
        positions.append(first + (units - 1) / 2)
        found.append((keys[first], values[first]) if units == 1 else group(attention, first, units, keys, values))
    seen_keys, seen_values = zip(*found, strict=True)
    return positions, torch.stack(seen_keys), torch.stack(seen_values)


def group(attention: Heads, first: int, units: int, keys: Stream, values: Stream) -> tuple[Tensor, Tensor]:
    """Key and value [K, d] by which a group of units is seen."""
    assert isinstance(attention, FoveaAttention)
    j = next(j for j in range(1, 64) if fovea_scale(attention.fovea, j) == units)
    key, value = fovea_group(attention, j, first // units, keys, values)
    return key + cast(GroupPool, attention.pools[min(j, len(attention.pools)) - 1]).offset, value


def fovea_scale(fovea: Fovea, j: int) -> int:
    """Units per group of the jth scale: 1 of the 0th, then as listed, then four times the one before."""
    if j == 0:
        return 1
    return fovea.scales[j - 1] if j <= len(fovea.scales) else 4 * fovea_scale(fovea, j - 1)


def fovea_group(attention: FoveaAttention, j: int, group: int, keys: Stream, values: Stream) -> tuple[Tensor, Tensor]:
    """Key and value [K, d] of a group: the mean of its members, groups of the scale before, under learned weights."""
    if j == 0:
        return keys[group], values[group]
    k = fovea_scale(attention.fovea, j) // fovea_scale(attention.fovea, j - 1)
    pool = cast(GroupPool, attention.pools[min(j, len(attention.pools)) - 1])
    members = [fovea_group(attention, j - 1, group * k + place, keys, values) for place in range(k)]
    keys_kKd, values_kKd = (torch.stack(part) for part in zip(*members, strict=True))
    weights_kK = ((keys_kKd * pool.gate).sum(-1) + pool.place_bias).exp()
    weights_kK1 = (weights_kK / weights_kK.sum(0))[..., None]
    return (weights_kK1 * keys_kKd).sum(0), (weights_kK1 * values_kKd).sum(0)


def pool(step: Downsample, finer: Stream) -> Stream:
    """Unit j is made of the finer units j·k … j·k+k-1; a group that is not complete makes none."""
    k = step.factor
    return [pool_group(step, finer[j * k : (j + 1) * k]) for j in range(len(finer) // k)]


def pool_group(step: Downsample, group: Stream) -> Tensor:
    members = [normalise(step.norm, unit) for unit in group]
    if step.kind == "linear":
        return step.proj(torch.cat(members))
    mean = torch.stack(members).mean(0)
    unit = step.proj(mean)
    if step.kind == "mean":
        return unit
    H = step.coarse.heads
    query_Hd = (step.q_proj.weight @ mean).view(H, -1)
    keys_kHd, values_kHd = keys_and_values(step.kv_proj, members, H)
    return unit + step.o_proj.weight @ attend(query_Hd, keys_kHd, values_kHd, bias_HL=step.place_bias)


def expand(step: Upsample, finer: Stream, coarser: Stream) -> Stream:
    """Finer unit t gets the newest coarser unit complete with t, or a learned start before there is one."""
    k, places = step.factor, len(step.start)
    units = [normalise(step.norm, unit) for unit in coarser]
    projected = [(step.proj.weight @ unit).view(places, -1) for unit in units]
    out = []
    for t, x in enumerate(finer):
        complete = (t + 1) // k
        shown_PD = projected[complete - 1] if complete else step.start
        place = (t + 1) % k if step.kind == "linear" else 0
        y = x + shown_PD[place]
        if step.lookup is not None:
            y = y + look_up(step.lookup, x, units[:complete])
        out.append(y)
    return out


def look_up(lookup: Lookup, x: Tensor, units: Stream) -> Tensor:
    """What the finer unit ``x`` finds in the complete coarser ones and the learned one before them."""
    query_Hd = (lookup.q_proj.weight @ normalise(lookup.query_norm, x)).view(lookup.heads, -1)
    keys_LHd, values_LHd = keys_and_values(lookup.kv_proj, [lookup.start_unit, *units], lookup.heads)
    return lookup.o_proj.weight @ attend(query_Hd, keys_LHd, values_LHd)


def keys_and_values(proj: nn.Linear, units: Stream, heads: int) -> tuple[Tensor, Tensor]:
    keys, values = torch.stack([proj.weight @ unit for unit in units]).chunk(2, -1)
    return keys.unflatten(-1, (heads, -1)), values.unflatten(-1, (heads, -1))


def attend(
    query_Hd: Tensor,
    keys_LKd: Tensor,
    values_LKd: Tensor,
    bias_HL: Tensor | None = None,
    soft_cap: float | None = None,
) -> Tensor:
    """Softmax attention of one query, [H·d]; the heads h·H/K … of query group h share key-value head h."""
    H, d = query_Hd.shape
    K = keys_LKd.shape[1]
    keys_HLd, values_HLd = (part.repeat_interleave(H // K, 1).transpose(0, 1) for part in (keys_LKd, values_LKd))
    logits_HL = (keys_HLd @ query_Hd[..., None]).squeeze(-1) / d**0.5
    if soft_cap is not None:
        logits_HL = soft_cap * (logits_HL / soft_cap).tanh()
    if bias_HL is not None:
        logits_HL = logits_HL + bias_HL
    weights_HL = (logits_HL - logits_HL.amax(1, keepdim=True).detach()).exp()
    weights_HL = weights_HL / weights_HL.sum(1, keepdim=True)
    return (weights_HL[..., None] * values_HLd).sum(1).flatten()


def normalise(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    assert norm.eps is not None
    return x / (x.square().mean() + norm.eps).sqrt() * norm.weight


def rotate(x_LHd: Tensor, positions: list[float], speeds: tuple[float, ...]) -> Tensor:
    """Turn the pairs (i, i + d/2) of the vectors at each of the L positions by position · speeds[i]."""
    speed = torch.tensor(speeds, dtype=torch.float64, device=x_LHd.device)
    angle = (torch.tensor(positions, device=x_LHd.device)[:, None, None] * speed).to(x_LHd.dtype)
    cos, sin = angle.cos(), angle.sin()
    first, second = x_LHd.chunk(2, -1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)
