"""What a model will cost, predicted from its spec: parameters, FLOPs, memory for training, and the cache.

Counted the way the model works: over n tokens a level of stride k has n // k units, and what works there works once
per unit. A multiply-add is two FLOPs; matrix products and attention are counted, attention over the keys a query may
see. A level answers for its layers and for the moves between it and the next finer level: for what it adds.

Names in the formulas: D width, H heads, K key-value heads, d head width, F feed-forward width, V vocabulary, f and c
the widths of the finer and the coarser level of a move, k its factor, e bytes of a number in a matrix product.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise, zip_longest
from typing import Any

from foveate.errors import FoveateError, shown
from foveate.spec import OCTAVE, Attention, Expand, HierarchySpec, Level, Pool, Run

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LARGEST = 1 << 30  # context, batch or vocabulary

FP32 = 4
TOKEN_ID = 8
FP32_COPIES = 4  # of a parameter while training with Adam: itself, its gradient and two moments
TRAINING = 3  # forward, and a backward of twice its products
FOVEA_SAMPLES = 512  # positions that stand for all others when the keys of a fovea are counted


@dataclass(frozen=True, kw_only=True)
class Part:
    """Costs that add up: FLOPs per token, bytes for the whole batch at the context.

    Attributes:
        params: Parameters, a tied embedding once.
        flops_per_token: One token decoded with the cache at the end of the context, averaged over the clock.
        train_flops_per_token: Forward and backward, averaged over all positions of the context.
        backward_bytes: Kept from the forward for the backward, beside parameters; right to 5% on a CPU. Norms are taken
            to run as separate operations: where a device has them as one kernel, less is kept.
        cache_bytes: Kept in order to go on decoding. What is reserved ahead, to be written in place, is not counted.
    """

    params: int = 0
    flops_per_token: float = 0.0
    train_flops_per_token: float = 0.0
    backward_bytes: int = 0
    cache_bytes: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Part)})


@dataclass(frozen=True, kw_only=True)
class LevelCost:
    """One level: its shape, how often each of its layers runs, and its part of every cost."""

    level: Level
    layers: int
    part: Part

    @property
    def runs_per_token(self) -> float:
        return 1 / self.level.stride

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.level), "layers": self.layers, "runs_per_token": self.runs_per_token, **asdict(self.part)}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A whole model under one load: its levels, finest first, and its ends (embedding, last norm, head)."""

    walk: str
    load: Load
    levels: tuple[LevelCost, ...]
    ends: Part

    @property
    def total(self) -> Part:
        return sum((level.part for level in self.levels), self.ends)

    @property
    def layers(self) -> int:
        return sum(level.layers for level in self.levels)

    @property
    def layer_runs_per_token(self) -> float:
        """Layers run per token, averaged: the depth of a plain model of equal work."""
        return sum(level.layers * level.runs_per_token for level in self.levels)

    @property
    def weight_bytes(self) -> int:
        """The parameters in the dtype used for decoding."""
        return self.total.params * self.load.element

    @property
    def training_bytes(self) -> int:
        """Parameters, gradients and Adam's moments in fp32, and what is kept for the backward."""
        return self.total.params * FP32_COPIES * FP32 + self.total.backward_bytes

    def to_json(self) -> dict[str, Any]:
        """A JSON object: totals, and the same costs of each level and of embedding and head, which add up to them."""
        return {
            "walk": self.walk,
            **asdict(self.load),
            "layers": self.layers,
            "layer_runs_per_token": self.layer_runs_per_token,
            **asdict(self.total),
            "weight_bytes": self.weight_bytes,
            "training_bytes": self.training_bytes,
            "levels": [level.to_json() for level in self.levels],
            "embedding_and_head": asdict(self.ends),
        }


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the model is asked to do: ``batch`` sequences of ``context`` tokens over a vocabulary.

    ``dtype`` is that of weights and cache when decoding. Training keeps its parameters in fp32 and, where ``dtype`` has
    16 bits, computes under autocast.
    """

    context: int
    vocab_size: int
    batch: int = 1
    dtype: str = "float32"
    tied: bool = True

    def __post_init__(self) -> None:
        for name in ("context", "vocab_size", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
                raise FoveateError(f"{name} is {shown(value)}; it must be a whole number from 1 to {LARGEST}")
        if self.dtype not in DTYPE_BYTES:
            raise FoveateError(f"dtype is {shown(self.dtype)}; choose one of {', '.join(DTYPE_BYTES)}")

    @property
    def element(self) -> int:
        """Bytes of a number in a matrix product."""
        return DTYPE_BYTES[self.dtype]

    def units(self, stride: int) -> int:
        return self.context // stride

    def weight_copies(self, matrices: int) -> int:
        """Bytes of the 16-bit copies that autocast makes of ``matrices`` weights and keeps for the backward."""
        return 0 if self.dtype == "float32" else matrices * self.element


def predict(spec: HierarchySpec, load: Load) -> Cost:
    """What ``spec`` costs under ``load``."""
    parts = {stride: Part() for stride in spec.strides}
    layers = dict.fromkeys(spec.strides, 0)
    for step in spec.steps:
        match step:
            case Run():
                layers[step.stride] += step.layers
                parts[step.stride] += _run(spec.level(step.stride), step, load)
            case Pool():
                parts[step.stride] += _pool(spec.level(step.source), spec.level(step.stride), spec.pooling, load)
            case Expand():
                parts[step.source] += _expand(spec.level(step.stride), spec.level(step.source), spec.expanding, load)
    levels = tuple(
        LevelCost(level=level, layers=layers[level.stride], part=parts[level.stride]) for level in spec.levels
    )
    return Cost(walk=str(spec), load=load, levels=levels, ends=_ends(spec.level(1).width, load))


def keys_seen(attention: Attention, units: int) -> int:
    """Keys that the newest of ``units`` units attends to; a group of a fovea is one key."""
    if attention.kind == "full":
        return units
    if attention.kind == "window":
        assert attention.window is not None
        return min(attention.window, units)
    return units - _sharp_from(attention, units) + sum(groups_seen(attention, units))


def groups_seen(fovea: Attention, units: int) -> list[int]:
    """Groups at each scale, finest first, that the newest of ``units`` units sees."""
    end, seen = _sharp_from(fovea, units), list[int]()
    while end or len(seen) < len(fovea.scales):
        scale, coarser = _scale(fovea, len(seen)), _scale(fovea, len(seen) + 1)
        start = max(-(-(end - fovea.groups * scale) // coarser), 0) * coarser  # whole groups are left to the next scale
        if fovea.tail == "keep" and len(seen) == len(fovea.scales) - 1:
            start = 0
        seen.append((end - start) // scale)
        end = start
    return seen


def _sharp_from(fovea: Attention, units: int) -> int:
    """The first unit of the block before that of the newest of ``units`` units."""
    return max((units - 1) // fovea.block - 1, 0) * fovea.block


def _scale(fovea: Attention, i: int) -> int:
    """Units per group of the scale after ``i`` others; before the first, a unit."""
    listed = (1, *fovea.scales)
    return listed[i + 1] if i + 1 < len(listed) else listed[-1] * OCTAVE ** (i + 2 - len(listed))


def _fovea_slots(fovea: Attention, units: int) -> int:
    """Units and groups that a layer has room for: rings, but for the last scale where it keeps all groups."""
    if not units:
        return 0
    rings = len(groups_seen(fovea, units))
    every = units // fovea.scales[-1] if fovea.tail == "keep" else 0
    return 2 * fovea.block + fovea.groups * (rings - (fovea.tail == "keep")) + every


def mean_keys_seen(attention: Attention, units: int) -> float:
    """``keys_seen`` averaged over the positions of a sequence of ``units`` units."""
    if not units:
        return 0.0
    if attention.kind == "fovea":
        count = min(units, FOVEA_SAMPLES)
        return sum(keys_seen(attention, (2 * i + 1) * units // (2 * count) + 1) for i in range(count)) / count
    full = keys_seen(attention, units)
    return full - full * (full - 1) / (2 * units)


def _run(level: Level, run: Run, load: Load) -> Part:
    layers = sum([_layer(level, run.attention, load)] * run.layers, Part())
    if run.attention.kind != "fovea" or not run.layers:
        return layers
    blocks, keys = _gathered(run.attention, load.units(level.stride))
    return layers + Part(backward_bytes=load.batch * load.element * blocks * run.attention.block * keys)  # the mask


def _layer(level: Level, attention: Attention, load: Load) -> Part:
    D, H, K, d, F = level.width, level.heads, level.kv_heads, level.head_dim, level.feed_forward
    units, e = load.units(level.stride), load.element
    matrices = (H + 2 * K) * d * D + H * d * D + 3 * D * F
    per_key = 4 * H * d
    saved = units * (2 * _saved_norm(D) + e * (2 * D + 4 * F) + FP32 * H)  # the last: log-sum-exp of attention
    saved += e * _saved_by_attention(level, attention, units)
    return Part(
        params=matrices + 2 * D + K * _fovea_params(attention, d),
        flops_per_token=(2 * matrices + per_key * keys_seen(attention, max(units, 1))) / level.stride,
        train_flops_per_token=TRAINING
        * (2 * matrices + per_key * mean_keys_seen(attention, units))
        * units
        / load.context,
        backward_bytes=load.batch * saved + load.weight_copies(matrices),
        cache_bytes=load.batch * e * K * d * _items_kept(attention, units),
    )


def _items_kept(attention: Attention, units: int) -> int:
    """Vectors of a head's width kept per key-value head: keys and values, and for a fovea keys before rotation."""
    if attention.kind == "fovea":
        return 3 * _fovea_slots(attention, units)
    return 2 * keys_seen(attention, units)


def _fovea_params(attention: Attention, head_dim: int) -> int:
    """Per key-value head and scale: a bias per member of a group, a gate, an offset."""
    if attention.kind != "fovea":
        return 0
    scales = (1, *attention.scales, *([attention.scales[-1] * OCTAVE] if attention.tail == "log" else []))
    return sum(coarse // fine + 2 * head_dim for fine, coarse in pairwise(scales))


def _saved_by_attention(level: Level, attention: Attention, units: int) -> int:
    """Numbers kept between a layer's projections: queries, keys, values and output."""
    queries, keys = level.width, level.kv_heads * level.head_dim
    if attention.kind == "fovea":
        # keys gathered for a block are gathered again for the backward pass; kept is what they are gathered from
        padded = (-(-units // attention.block) + 2) * attention.block
        items = padded + sum(padded // scale for scale in attention.scales)
        return units * 2 * queries + 3 * keys * items if units else 0
    # the projection's output holds the values, so its queries and keys are kept too, beside the rotated ones
    saved = units * ((queries + 2 * keys) + (queries + keys) + queries)
    if attention.window is None or units <= attention.window:
        return saved
    # blocks of queries after the first bring the keys of two windows along; joining the blocks copies the output
    blocks = -(-units // attention.window) - 1
    return saved + blocks * attention.window * (4 * keys + queries) + units * queries


def _gathered(fovea: Attention, units: int) -> tuple[int, int]:
    """Blocks of queries, and the keys gathered for each: of every scale as many as any block sees."""
    blocks = -(-units // fovea.block)
    # how many that is goes up and down with a short period as blocks go by
    lasts = [groups_seen(fovea, units - i * fovea.block) for i in range(min(blocks, FOVEA_SAMPLES))]
    return blocks, 2 * fovea.block + sum(max(seen) for seen in zip_longest(*lasts, fillvalue=0))


def _pool(fine: Level, coarse: Level, kind: str, load: Load) -> Part:
    """What a pool costs; all of it runs once per coarse unit."""
    f, c, k = fine.width, coarse.width, coarse.stride // fine.stride
    units, e = load.units(coarse.stride), load.element
    matrices = k * f * c if kind == "linear" else f * c * (f != c)
    products, saved, extra = matrices, k * f if kind == "linear" else f * (f != c), 0
    if kind == "attention":
        matrices += f * c + 2 * f * c + c * c
        products += f * c + k * 2 * f * c + c * c + 2 * k * c
        saved = f + k * f + (2 * k + 2) * c  # inputs of the projections, keys and values, query, output
        extra = coarse.heads * k
    return Part(
        params=matrices + f + extra,
        flops_per_token=2 * products / coarse.stride,
        train_flops_per_token=TRAINING * 2 * products * units / load.context,
        backward_bytes=load.batch * units * (k * _saved_norm(f) + e * saved + FP32 * extra)
        + load.weight_copies(matrices),
        cache_bytes=load.batch * e * k * f * (load.units(fine.stride) > 0),
    )


def _expand(fine: Level, coarse: Level, kind: str, load: Load) -> Part:
    """What an expand costs: projections once per coarse unit, attention once per finer one."""
    f, c, k = fine.width, coarse.width, coarse.stride // fine.stride
    units, fine_units, e = load.units(coarse.stride), load.units(fine.stride), load.element
    places = k if kind == "linear" else 1
    matrices = places * f * c
    part = Part(
        params=matrices + c + places * f,
        flops_per_token=2 * matrices / coarse.stride,
        train_flops_per_token=TRAINING * 2 * matrices * units / load.context,
        backward_bytes=load.batch * units * (_saved_norm(c) + e * c) + load.weight_copies(matrices),
        cache_bytes=load.batch * e * places * f * (units > 0),
    )
    return part + _lookup(fine, coarse, units, fine_units, load) if kind == "attention" else part


def _lookup(fine: Level, coarse: Level, units: int, fine_units: int, load: Load) -> Part:
    """What attention adds to an expand: every finer unit attends to all complete units and to a learned first one."""
    f, c, e = fine.width, coarse.width, load.element
    own, other = 2 * f * f, 2 * f * c  # weights applied to finer and to coarser units
    saved = FP32 * (f + 1 + fine.heads) + e * 3 * f  # its norm's input is the one that the pool has kept
    mask = FP32 * fine_units * (units + 1)
    train_products = (own + 2 * f * (1 + units / 2)) * fine_units + other * units
    return Part(
        params=own + other + f + c,
        flops_per_token=2 * (own + 2 * f * (1 + units)) / fine.stride + 2 * other / coarse.stride,
        train_flops_per_token=TRAINING * 2 * train_products / load.context,
        backward_bytes=load.batch * (fine_units * saved + units * e * 2 * f) + mask + load.weight_copies(own + other),
        cache_bytes=load.batch * e * 2 * f * units,
    )


def _ends(width: int, load: Load) -> Part:
    V, D = load.vocab_size, width
    saved = TOKEN_ID + _saved_norm(D) + load.element * D + FP32 * V  # the last: log-probabilities
    return Part(
        params=V * D * (1 if load.tied else 2) + D,
        flops_per_token=2 * V * D,
        train_flops_per_token=TRAINING * 2 * V * D,
        backward_bytes=load.batch * load.context * saved + load.weight_copies(V * D),
    )


def _saved_norm(width: int) -> int:
    """Bytes a norm keeps of one unit: what came in, that normalised, and by how much; in fp32 even under autocast."""
    return FP32 * (2 * width + 1)
