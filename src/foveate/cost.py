"""What a model will cost, predicted from its spec: parameters, FLOPs, memory for training, and the cache.

Counted the way the model works: over n tokens a level of stride k has n // k units, and what works there works once
per unit. A multiply-add is two FLOPs; matrix products and attention are counted, attention over the keys a query may
see. A level answers for its layers and for the moves between it and the next finer level: for what it adds.

Names in the formulas: D width, H heads, K key-value heads, d head width, F feed-forward width, V vocabulary, f and c
the widths of the finer and the coarser level of a move, k its factor, e bytes of a number in a matrix product.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from foveate.errors import FoveateError, shown
from foveate.spec import Attention, Block, Expand, HierarchySpec, Level, Pool, Run

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LARGEST = 1 << 30  # context, batch or vocabulary

FP32 = 4
TOKEN_ID = 8
FP32_COPIES = 4  # of a parameter while training with Adam: itself, its gradient and two moments
TRAINING = 3  # forward, and a backward of twice its products


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
                parts[step.stride] += _run(spec.level(step.stride), step, spec.block, load)
            case Pool():
                parts[step.stride] += _pool(spec.level(step.source), spec.level(step.stride), spec.pooling, load)
            case Expand():
                parts[step.source] += _expand(spec.level(step.stride), spec.level(step.source), spec.expanding, load)
    levels = tuple(
        LevelCost(level=level, layers=layers[level.stride], part=parts[level.stride]) for level in spec.levels
    )
    return Cost(walk=str(spec), load=load, levels=levels, ends=_ends(spec.level(1).width, load))


def _run(level: Level, run: Run, block: Block, load: Load) -> Part:
    if not run.layers:
        return Part()
    layers = sum([_layer(level, run.attention, block, load)] * run.layers, Part())
    shared, of_rows = run.attention.saved_masks(load.units(level.stride))
    return layers + Part(backward_bytes=load.element * (shared + load.batch * of_rows))


def _layer(level: Level, attention: Attention, block: Block, load: Load) -> Part:
    D, H, K, d, F = level.width, level.heads, level.kv_heads, level.head_dim, level.feed_forward
    units, e = load.units(level.stride), load.element
    matrices = (H + 2 * K) * d * D + H * d * D + 3 * D * F
    per_key = 4 * H * d
    saved = units * (block.stream_norms * _saved_norm(D) + e * (D + H * d + 4 * F) + FP32 * H)  # log-sum-exp at last
    saved += e * attention.saved(level, units)
    biases = {"qkv": (H + 2 * K) * d, "o": D, "mlp": 2 * F + D}
    vectors = block.stream_norms * D + sum(biases[name] for name in block.biases)
    if block.qk_norm is not None:
        vectors += 2 * d if block.qk_norm == "head" else (H + K) * d
        saved += units * (FP32 * 2 * (H + K) * d + FP32 * (H + K) + e * 2 * K * d)
    return Part(
        params=matrices + vectors + K * attention.parameters(d),
        flops_per_token=(2 * matrices + per_key * attention.keys_read(max(units, 1))) / level.stride,
        train_flops_per_token=TRAINING
        * (2 * matrices + per_key * attention.mean_keys_read(units))
        * units
        / load.context,
        backward_bytes=load.batch * saved + load.weight_copies(matrices),
        cache_bytes=load.batch * e * K * d * attention.vectors * attention.items_kept(units),
    )


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
