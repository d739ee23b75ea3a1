"""The walk: which resolutions a model works at, in which order, with how many layers.

A walk is written ``N@S[:attention]`` per run of layers: ``"2@1 8@4 2@1"`` is two layers on the tokens, eight on units
of four tokens, two on the tokens again. Moving to a larger stride pools, to a smaller one expands and adds; a move
passes through every level between. This module knows text, dataclasses and JSON; it does not know torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any

from foveate.errors import FoveateError, shown
from foveate.spec.block import PLAIN, Block
from foveate.spec.checks import check_count
from foveate.spec.kinds import FULL, Attention, parse_attention
from foveate.spec.rope import DEFAULT, NONE, Rope, read_ropes

POOLINGS = ("mean", "linear", "attention")
EXPANDINGS = ("repeat", "linear", "attention")
MAX_STRIDE = 65_536
MAX_LAYERS = 1_000
MAX_STEPS = 2_000  # runs, pools and expands
MAX_TEXT = 100_000  # characters of a walk
MAX_WIDTH = 1_048_576

EXAMPLE = "a walk looks like '2@1 8@4 2@1': layers@stride, starting and ending at stride 1"


@dataclass(frozen=True, kw_only=True)
class Level:
    """A resolution: ``stride`` tokens per unit, and the shape of the layers that work there.

    ``head_dim`` is the width over the heads unless it is given.
    """

    stride: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    head_dim: int = 0

    def __post_init__(self) -> None:
        owner = f"level {self.stride}"
        check_count(owner, "stride", self.stride, 1, MAX_STRIDE)
        check_count(owner, "width", self.width, 1, MAX_WIDTH)
        check_count(owner, "heads", self.heads, 1, self.width)
        check_count(owner, "kv_heads", self.kv_heads, 1, self.heads)
        check_count(owner, "feed_forward", self.feed_forward, 1, 16 * MAX_WIDTH)
        if self.head_dim in (0, None):
            if self.width % self.heads or self.width // self.heads % 2:
                raise FoveateError(
                    f"{owner}: width {self.width} over {self.heads} heads must give an even whole number per head"
                )
            object.__setattr__(self, "head_dim", self.width // self.heads)
        check_count(owner, "head_dim", self.head_dim, 2, MAX_WIDTH)
        if self.head_dim % 2:
            raise FoveateError(f"{owner}: head_dim is {self.head_dim}; it must be even")
        if self.heads % self.kv_heads:
            raise FoveateError(f"{owner}: heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")

    def to_json(self) -> dict[str, int]:
        """Its fields, ``head_dim`` only where it is not the width over the heads."""
        values = asdict(self)
        if self.head_dim * self.heads == self.width:
            del values["head_dim"]
        return values


@dataclass(frozen=True, kw_only=True)
class Run:
    """``layers`` transformer layers on the level of ``stride``."""

    stride: int
    layers: int
    attention: Attention = FULL
    rope: str = DEFAULT

    def __post_init__(self) -> None:
        check_count("run", "stride", self.stride, 1, MAX_STRIDE)
        check_count("run", "layers", self.layers, 0, MAX_LAYERS)
        if not isinstance(self.attention, Attention):
            raise FoveateError(
                f"run: attention is {shown(self.attention)}; pass a kind of attention, or parse a walk's text"
            )

    def __str__(self) -> str:
        options = [] if self.attention == FULL else [str(self.attention)]
        options += [] if self.rope == DEFAULT else [f"rope={self.rope}"]
        return ":".join([f"{self.layers}@{self.stride}", ",".join(options)]).rstrip(":")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The new complete groups of the level ``source`` become units of the coarser level ``stride``."""

    source: int
    stride: int

    @property
    def factor(self) -> int:
        """Source units per unit."""
        return self.stride // self.source


@dataclass(frozen=True, kw_only=True)
class Expand:
    """The newest complete unit of the coarser level ``source`` is added to the stream of the level ``stride``."""

    source: int
    stride: int

    @property
    def factor(self) -> int:
        """Positions of this level per source unit."""
        return self.source // self.stride


Step = Run | Pool | Expand


def _read_run(word: str) -> Run:
    match = re.fullmatch(r"([0-9]{1,10})@([0-9]{1,10})(?::(.+))?", word)
    if not match:
        raise FoveateError(f"walk: cannot read {shown(word)}; {EXAMPLE}")
    layers, stride = int(match[1]), int(match[2])
    if not 1 <= stride <= MAX_STRIDE:
        raise FoveateError(f"walk: stride {stride} in {word!r} must be from 1 to {MAX_STRIDE}; stride 1 is the tokens")
    attention, _, rope = match[3].rpartition("rope=") if match[3] and "rope=" in match[3] else (match[3], "", DEFAULT)
    attention = attention.removesuffix(",") if attention else attention
    if not re.fullmatch("[a-z][a-z0-9_]{0,30}", rope):
        raise FoveateError(f"walk: rope {shown(rope)} in {shown(word)} is no name; write for example 1@1:rope=none")
    return Run(stride=stride, layers=layers, attention=parse_attention(attention) if attention else FULL, rope=rope)


def parse_walk(text: str) -> tuple[Run, ...]:
    """The runs of a walk, checked: strides divide one another, first and last are 1.

    Raises:
        FoveateError: names the word that is wrong and what to write instead.
    """
    if text is not None and not isinstance(text, str):
        raise FoveateError(f"walk is {shown(text)}, not text; {EXAMPLE}")
    if not text or not text.strip():
        raise FoveateError(f"walk is empty; {EXAMPLE}")
    if len(text) > MAX_TEXT:
        raise FoveateError(f"walk has {len(text):,} characters, over {MAX_TEXT:,}; {EXAMPLE}")
    runs = tuple(_read_run(word) for word in text.split())
    _check_runs(runs)
    return runs


def _check_runs(runs: tuple[Run, ...]) -> None:
    walk = shown(" ".join(map(str, runs)))
    strides = sorted({run.stride for run in runs})
    for fine, coarse in pairwise(strides):
        if coarse % fine:
            raise FoveateError(
                f"walk {walk}: stride {coarse} is not a multiple of stride {fine}; use strides that divide one "
                f"another, such as 1, {fine} and {fine * max(2, round(coarse / fine))}"
            )
    if not runs or runs[0].stride != 1 or runs[-1].stride != 1:
        raise FoveateError(
            f"walk {walk} must start and end at stride 1, where tokens are read and predicted; "
            f"add '0@1' at the end that lacks it, as in '0@1 14@16 8@4 8@1'"
        )
    layers = sum(run.layers for run in runs)
    if not 1 <= layers <= MAX_LAYERS:
        raise FoveateError(f"walk {walk} has {layers} layers; it needs from 1 to {MAX_LAYERS}")
    moves = sum(abs(strides.index(run.stride) - strides.index(last.stride)) for last, run in pairwise(runs))
    if len(runs) + moves > MAX_STEPS:
        raise FoveateError(f"walk {walk} has {len(runs)} runs and {moves} moves, together over {MAX_STEPS}")


def default_feed_forward(width: int) -> int:
    """SwiGLU's usual 8/3 of the width, rounded up to a multiple of 32."""
    return -(-8 * width // 96) * 32


@dataclass(frozen=True, kw_only=True)
class HierarchySpec:
    """A whole architecture but for the vocabulary: the runs of its walk and the levels they work on.

    ``str(spec)`` is the walk, ``to_json`` and ``from_json`` carry everything.
    """

    runs: tuple[Run, ...]
    levels: tuple[Level, ...]
    pooling: str = "mean"
    expanding: str = "repeat"
    block: Block = PLAIN
    ropes: tuple[Rope, ...] = ()
    steps: tuple[Step, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_runs(self.runs)
        if self.pooling not in POOLINGS:
            raise FoveateError(f"pooling is {shown(self.pooling)}; choose one of {', '.join(POOLINGS)}")
        if self.expanding not in EXPANDINGS:
            raise FoveateError(f"expanding is {shown(self.expanding)}; choose one of {', '.join(EXPANDINGS)}")
        named = sorted({run.stride for run in self.runs})
        given = [level.stride for level in self.levels]
        if given != named:
            raise FoveateError(f"levels are given for strides {shown(given)}; the walk has strides {named}")
        self._check_heads()
        object.__setattr__(self, "steps", self._moves())

    def _check_heads(self) -> None:
        names = {rope.name for rope in self.ropes}
        for run in self.runs:
            if run.rope not in (DEFAULT, NONE, *names):
                raise FoveateError(
                    f"walk: rope {shown(run.rope)} is not there; it has {', '.join(sorted({DEFAULT, NONE, *names}))}"
                )
            for rope in self.ropes:
                if rope.name == run.rope:
                    rope.check_head(self.level(run.stride).head_dim)
        if "attention" in (self.pooling, self.expanding):
            for level in self.levels:
                if level.width % level.heads:
                    raise FoveateError(
                        f"level {level.stride}: width {level.width} must be a multiple of heads {level.heads} for "
                        f"pooling or expanding by attention"
                    )

    def rope(self, run: Run, theta: float) -> Rope | None:
        """How the layers of ``run`` turn, by ``theta`` where nothing else is said; None if they do not."""
        if run.rope == NONE:
            return None
        return next((rope for rope in self.ropes if rope.name == run.rope), Rope(name=DEFAULT, theta=theta))

    def _moves(self) -> tuple[Step, ...]:
        strides = self.strides
        steps: list[Step] = []
        here = 0
        for run in self.runs:
            there = strides.index(run.stride)
            while here < there:
                steps.append(Pool(source=strides[here], stride=strides[here + 1]))
                here += 1
            while here > there:
                steps.append(Expand(source=strides[here], stride=strides[here - 1]))
                here -= 1
            steps.append(run)
        return tuple(steps)

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(level.stride for level in self.levels)

    @property
    def n_layers(self) -> int:
        return sum(run.layers for run in self.runs)

    @property
    def reads_any_length(self) -> bool:
        """Whether no layer's work grows with the text: none is too long, and no token costs more than another."""
        return self.expanding != "attention" and all(run.attention.flat for run in self.runs if run.layers)

    def level(self, stride: int) -> Level:
        return self.levels[self.strides.index(stride)]

    def __str__(self) -> str:
        return " ".join(map(str, self.runs))

    @classmethod
    def parse(
        cls,
        walk: str,
        *,
        width: int = 256,
        heads: int = 4,
        kv_heads: int | None = None,
        feed_forward: int | None = None,
        levels: Mapping[int | str, Mapping[str, int]] | None = None,
        pooling: str = "mean",
        expanding: str = "repeat",
        head_dim: int | None = None,
        block: Block | None = None,
        ropes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> HierarchySpec:
        """A spec from a walk's text, one shape for all levels, and ``levels[stride]`` overriding it where given.

        ``kv_heads`` defaults to ``heads``, ``feed_forward`` to 8/3 of the width rounded up to a multiple of 32.
        """
        runs = parse_walk(walk)
        strides = sorted({run.stride for run in runs})
        own = _read_level_shapes(levels or {}, strides)
        made = []
        for stride in strides:
            shape = {"width": width, "heads": heads, "kv_heads": kv_heads, "feed_forward": feed_forward}
            shape["head_dim"] = head_dim or 0
            given = own.get(stride, {})
            # a level of its own width or heads takes its own defaults for what depends on them
            if "width" in given:
                shape["feed_forward"] = None
            if "heads" in given:
                shape["kv_heads"] = None
            if {"width", "heads"} & set(given):
                shape["head_dim"] = 0
            shape |= given
            check_count(f"level {stride}", "width", shape["width"], 1, MAX_WIDTH)
            shape["kv_heads"] = shape["kv_heads"] if shape["kv_heads"] is not None else shape["heads"]
            if shape["feed_forward"] is None:
                shape["feed_forward"] = default_feed_forward(shape["width"])  # type: ignore[arg-type]
            made.append(Level(stride=stride, **shape))  # type: ignore[arg-type]
        return cls(
            runs=runs,
            levels=tuple(made),
            pooling=pooling,
            expanding=expanding,
            block=block or PLAIN,
            ropes=read_ropes(ropes),
        )

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> HierarchySpec:
        """A spec from the fields of a model's configuration."""
        return cls.parse(
            values["walk"],
            width=values.get("hidden_size", 256),
            heads=values.get("num_attention_heads", 4),
            kv_heads=values.get("num_key_value_heads"),
            feed_forward=values.get("intermediate_size"),
            levels=values.get("levels"),
            pooling=values.get("pooling", "mean"),
            expanding=values.get("expanding", "repeat"),
            head_dim=values.get("head_dim"),
            block=Block(
                norms=values.get("norms", "pre"),
                qk_norm=values.get("qk_norm"),
                biases=values.get("biases") or (),
                activation=values.get("hidden_act", "silu"),
                soft_cap=values.get("attn_logit_softcapping"),
            ),
            ropes=values.get("ropes"),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` turns back into an equal spec."""
        values: dict[str, Any] = {
            "walk": str(self),
            "levels": [level.to_json() for level in self.levels],
            "pooling": self.pooling,
            "expanding": self.expanding,
        }
        if self.block != PLAIN:
            values["block"] = asdict(self.block)
        return values | ({"ropes": {rope.name: rope.to_json() for rope in self.ropes}} if self.ropes else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HierarchySpec:
        try:
            levels = tuple(Level(**level) for level in data["levels"])
            runs = parse_walk(data["walk"])
            block, ropes = Block(**data.get("block", {})), read_ropes(data.get("ropes"))
            return cls(
                runs=runs,
                levels=levels,
                pooling=data["pooling"],
                expanding=data["expanding"],
                block=block,
                ropes=ropes,
            )
        except (KeyError, TypeError) as error:
            raise FoveateError(
                f"this is not a hierarchy spec: {error}; it needs walk, levels, pooling and expanding"
            ) from None


def _read_level_shapes(levels: Mapping[int | str, Mapping[str, int]], strides: list[int]) -> dict[int, dict[str, int]]:
    names = {f.name for f in fields(Level)} - {"stride"}
    read: dict[int, dict[str, int]] = {}
    if not isinstance(levels, Mapping):
        raise FoveateError(f"levels is {shown(levels)}; write a mapping such as {{4: {{'width': 512}}}}")
    for key, shape in levels.items():
        stride = key if isinstance(key, str) else shown(key)
        if not re.fullmatch("[0-9]{1,9}", stride) or int(stride) not in strides:
            raise FoveateError(
                f"levels names stride {shown(key)}, which the walk does not have; its strides are {strides}"
            )
        if not isinstance(shape, Mapping) or not set(shape) <= names:
            raise FoveateError(f"levels[{stride}] is {shown(shape)}; it takes {', '.join(sorted(names))}")
        read[int(stride)] = dict(shape)
    return read
