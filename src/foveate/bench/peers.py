"""Other people's models, built to the shape of one of ours, to be measured beside it.

A peer is a ``Peer`` in ``PEERS``. The packages come with ``pip install 'foveate[peers]'``; one that is not installed is
named when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveate.backends import cpu
from foveate.backends.cpu.packing import pack
from foveate.bench.engines import Engine, FoveateEngine, HubEngine, StaticHubEngine
from foveate.bench.peer_engines import MegaByteEngine, RecomputingEngine, XTransformersEngine
from foveate.bench.peer_models import (
    Shape,
    hierarchical,
    hourglass,
    llama,
    megabyte,
    spacebyte_megabyte,
    x_transformers,
)
from foveate.errors import FoveateError
from foveate.hf.configuration_foveate import FoveateConfig
from foveate.hf.modeling_foveate import FoveateForCausalLM
from foveate.spec import HierarchySpec


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model of a benchmark, how it decodes, and the walk that its costs are predicted by (None: there is none)."""

    model: Any  # a causal language model as those of transformers are called
    engine: type[Engine]
    spec: HierarchySpec | None

    @property
    def walk(self) -> str | None:
        """What to show: of our own models alone."""
        return str(self.spec) if self.spec is not None and self.engine is FoveateEngine else None


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A kind of model to be measured beside ours.

    Attributes:
        package: what to install, as pip is told.
        token: how it generates a token.
        faults: known ones, and what is done about each here.
    """

    package: str
    token: str
    faults: str
    build: Callable[[Shape], nn.Module]
    engine: type[Engine]
    plain: bool = False  # costs what a plain walk of as many layers does


PEERS: dict[str, Peer] = {
    "llama": Peer(
        package="transformers",
        token="cached: keys and values are concatenated",
        faults="none",
        build=llama,
        engine=HubEngine,
        plain=True,
    ),
    "llama-static": Peer(
        package="transformers",
        token="cached: written in place, attention over all that is reserved, here just what is needed",
        faults="none",
        build=llama,
        engine=StaticHubEngine,
        plain=True,
    ),
    "x-transformers": Peer(
        package="x-transformers",
        token="cached: keys and values are concatenated; given the new token alone, its fastest way",
        faults="none found",
        build=x_transformers,
        engine=XTransformersEngine,
        plain=True,
    ),
    "hourglass-transformer": Peer(
        package="hourglass-transformer-pytorch",
        token="uncached: the whole text again",
        faults="NameError at lengths that its factors do not divide: the missing import is added; wrong with padding "
        "on the left: padded on the right",
        build=hourglass,
        engine=RecomputingEngine,
    ),
    "simple-hierarchical-transformer": Peer(
        package="simple-hierarchical-transformer",
        token="uncached: the whole text again",
        faults="an empty AssertionError beyond seq_len: made long enough; parameters of its extra losses are dropped",
        build=hierarchical,
        engine=RecomputingEngine,
    ),
    "megabyte": Peer(
        package="MEGABYTE-pytorch",
        token="uncached: the whole text again",
        faults="generate always writes the longest text: its forward is called instead",
        build=megabyte,
        engine=RecomputingEngine,
    ),
    "spacebyte-megabyte": Peer(
        package="a checkout of github.com/kjslag/spacebyte, tiktoken, sentencepiece",
        token="cached: global layers once a patch, local ones on the bytes of the patch",
        faults="fails without a cache at lengths that are no multiple of the patch: padded; in bf16 its mask counts "
        "positions in bf16 and is wrong beyond 256, which costs the same",
        build=spacebyte_megabyte,
        engine=MegaByteEngine,
    ),
}


def make_models(
    shapes: Sequence[Mapping[str, Any]],
    peers: Sequence[str],
    *,
    vocab_size: int,
    positions: int = 2048,
    peer_path: Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Contender]:
    """Untrained models of ``shapes`` (keyword arguments of ``FoveateConfig``), and peers in the shape of the first.

    Args:
        positions: the longest text that a peer with a table of positions must take.
        peer_path: a checkout of kjslag/spacebyte, for the peer of that name.

    Raises:
        FoveateError: for a peer that is not in ``PEERS``, is not installed, or cannot have that shape.
    """
    for name in peers:
        if name not in PEERS:
            raise FoveateError(f"peer {name!r} is unknown; choose one of {', '.join(PEERS)}")
    wanted: list[tuple[str, Mapping[str, Any], str | None]] = [(shape["walk"], shape, None) for shape in shapes]
    wanted += [(name, shapes[0], name) for name in peers]
    return {
        name: make_contender(
            shape, peer, vocab_size=vocab_size, positions=positions, peer_path=peer_path, device=device, dtype=dtype
        )
        for name, shape, peer in wanted
    }


def make_contender(
    shape: Mapping[str, Any],
    peer: str | None = None,
    *,
    vocab_size: int,
    positions: int = 2048,
    peer_path: Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Contender:
    """Our untrained model of ``shape``, or a peer in that shape; see ``make_models``."""
    torch.manual_seed(0)
    config = FoveateConfig(**shape, vocab_size=vocab_size)
    if peer is None:
        ours: Any = FoveateForCausalLM(config)
        model = ours.to(device=device, dtype=dtype)
        if model.device.type == "cpu":
            cpu.accelerate(model)
        return Contender(model=model, engine=FoveateEngine, spec=config.spec)
    kind = PEERS[peer]
    built = kind.build(Shape(spec=config.spec, vocab_size=vocab_size, positions=positions, path=peer_path))
    spec = _plain(config.spec) if kind.plain else None
    return Contender(model=built.to(device=device, dtype=dtype), engine=kind.engine, spec=spec)


def ready_to_decode(models: Mapping[str, Contender], weights: str | None = None) -> None:
    """Store the weights of our own models as decoding reads them fastest, or rounded to ``weights``, in place."""
    for given in models.values():
        if given.engine is FoveateEngine:
            pack(given.model, weights)


def contender(model: Any) -> Contender:
    """A model as it is measured: ours, any of transformers, or what is a contender already."""
    if isinstance(model, Contender):
        return model
    spec = getattr(model.config, "spec", None)
    return Contender(model=model, engine=HubEngine if spec is None else FoveateEngine, spec=spec)


def _plain(spec: HierarchySpec) -> HierarchySpec:
    level = spec.levels[0]
    return HierarchySpec.parse(
        f"{spec.n_layers}@1",
        width=level.width,
        heads=level.heads,
        kv_heads=level.kv_heads,
        feed_forward=level.feed_forward,
    )
