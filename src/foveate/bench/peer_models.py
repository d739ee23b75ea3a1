"""Other people's models, built to the shape of a walk and called alike.

Shape legend: B batch rows, T columns, V vocabulary.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_outputs import CausalLMOutput

from foveate.errors import FoveateError
from foveate.spec import HierarchySpec, Level, Run


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a peer is to be like: a walk, the rows of the embedding, the longest text, and a checkout of its source."""

    spec: HierarchySpec
    vocab_size: int
    positions: int
    path: Path | None = None

    @property
    def level(self) -> Level:
        return self.spec.levels[0]

    @property
    def runs(self) -> list[Run]:
        return [run for run in self.spec.runs if run.layers]

    def layers(self, fine: bool) -> int:
        """Layers on tokens, or all on coarser levels."""
        return sum(run.layers for run in self.runs if (run.stride == 1) == fine)


class PeerModel(nn.Module):
    """A network from token ids [B, T] to logits [B, T, V], with the loss that all models are trained by here."""

    net: Any

    def __init__(self, net: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.net = net
        self.config: Any = PreTrainedConfig()
        self.config.vocab_size = shape.vocab_size
        self.heads = shape.level.heads
        self.layers = shape.spec.n_layers
        self.width = shape.level.width

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, use_cache: bool = False) -> CausalLMOutput:
        logits_BTV = self.net(input_ids)
        loss = None
        if labels is not None:
            loss = ForCausalLMLoss(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutput(loss=loss, logits=logits_BTV)

    def forward_bytes(self, batch: int, context: int) -> float:
        """Of one call: scores, mask and weights of one attention, and all logits; roughly."""
        element = self.dtype.itemsize
        return batch * context * element * (3.0 * self.heads * context + 2 * self.config.vocab_size + 16 * self.width)

    def flops(self, batch: int, context: int) -> float:
        """Of one call, were every layer to see every token: an upper bound."""
        weights = sum(p.numel() for p in self.parameters())
        return batch * context * (2.0 * weights + 4 * self.layers * self.width * context)


def llama(shape: Shape) -> nn.Module:
    level = shape.level
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=level.width,
            intermediate_size=level.feed_forward,
            num_hidden_layers=shape.spec.n_layers,
            num_attention_heads=level.heads,
            num_key_value_heads=level.kv_heads,
            max_position_embeddings=1 << 20,
            tie_word_embeddings=True,
        )
    )


def x_transformers(shape: Shape) -> nn.Module:
    package, level = _package("x_transformers", "x-transformers"), shape.level
    layers = package.Decoder(
        dim=level.width,
        depth=shape.spec.n_layers,
        heads=level.heads,
        attn_dim_head=level.head_dim,
        attn_kv_heads=level.kv_heads if level.kv_heads != level.heads else None,
        attn_flash=True,
        rotary_pos_emb=True,
        use_rmsnorm=True,
        ff_glu=True,
        ff_swish=True,
        ff_no_bias=True,
        ff_mult=level.feed_forward / level.width,
    )
    net = package.TransformerWrapper(
        num_tokens=shape.vocab_size,
        max_seq_len=shape.positions,
        use_abs_pos_emb=False,
        tie_embedding=True,
        attn_layers=layers,
    )
    return PeerModel(net, shape)


def hourglass(shape: Shape) -> nn.Module:
    package = _package("hourglass_transformer_pytorch", "hourglass-transformer-pytorch")
    module = importlib.import_module(f"{package.__name__}.hourglass_transformer_pytorch")
    module.math = math  # type: ignore[attr-defined]  # it forgets to import it
    depth, factors = _nested(shape.runs, shape)
    net = package.HourglassTransformerLM(
        num_tokens=shape.vocab_size,
        dim=shape.level.width,
        max_seq_len=shape.positions,
        depth=depth,
        shorten_factor=factors,
        heads=shape.level.heads,
        dim_head=shape.level.head_dim,
        attn_resampling=False,
        updown_sample_type="linear",
    )
    return PeerModel(net, shape)


def _nested(runs: Sequence[Run], shape: Shape) -> tuple[Any, tuple[int, ...]]:
    """Depths as it wants them, (down, (down, middle, up), up), and the factor at each way down."""
    if len(runs) == 1:
        return runs[0].layers, ()
    first, *inner, last = runs
    if not inner or first.stride != last.stride or inner[0].stride <= first.stride:
        raise _unlike("hourglass-transformer", shape, "goes down and up again, such as '2@1 8@4 2@1'")
    depth, factors = _nested(inner, shape)
    return (first.layers, depth, last.layers), (inner[0].stride // first.stride, *factors)


def hierarchical(shape: Shape) -> nn.Module:
    package = _package("simple_hierarchical_transformer", "simple-hierarchical-transformer")
    level, strides = shape.level, shape.spec.strides
    net = package.HierarchicalTransformer(
        num_tokens=shape.vocab_size,
        dim=tuple(each.width for each in shape.spec.levels),
        depth=max(1, round(shape.spec.n_layers / len(strides))),  # it has every level in every layer
        seq_len=shape.positions,
        dim_head=level.head_dim,
        heads=tuple(each.heads for each in shape.spec.levels),
        hierarchies=tuple(strides),
        hierarchical_stride=tuple(strides),
        recon_loss_weight=0.0,
        next_latent_loss_weight=0.0,
    )
    net.latent_dynamics = nn.ModuleList()  # for losses of its own, which are not measured
    return PeerModel(net, shape)


def megabyte(shape: Shape) -> nn.Module:
    package = _package("MEGABYTE_pytorch", "MEGABYTE-pytorch")
    coarse = _coarsest(shape, "megabyte")
    net = package.MEGABYTE(
        num_tokens=shape.vocab_size,
        dim=(coarse.width, shape.level.width),
        depth=(shape.layers(fine=False), shape.layers(fine=True)),
        max_seq_len=(-(-shape.positions // coarse.stride), coarse.stride),
        dim_head=shape.level.head_dim,
        heads=shape.level.heads,
        rel_pos=True,
        flash_attn=True,
    )
    return PeerModel(net, shape)


class _SpaceByteMegaByte(PeerModel):
    def forward(self, input_ids: Tensor, labels: Tensor | None = None, use_cache: bool = False) -> CausalLMOutput:
        columns, patch = input_ids.shape[1], self.net.config.patch_size
        padded = nn.functional.pad(input_ids, (0, -columns % patch))  # it fails at others unless it has a cache
        logits_BTV = self.net(padded)[0][:, :columns]
        loss = None
        if labels is not None:
            loss = ForCausalLMLoss(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutput(loss=loss, logits=logits_BTV)


def spacebyte_megabyte(shape: Shape) -> nn.Module:
    module, coarse, level = _spacebyte(shape.path), _coarsest(shape, "spacebyte-megabyte"), shape.level
    if coarse.width % level.head_dim:
        raise FoveateError(
            f"peer spacebyte-megabyte: width {coarse.width} of its patches is no multiple of {level.head_dim}, the "
            f"width of a head of level 1, which all its layers share; choose --heads or --levels so"
        )
    config = module.MegaByteConfig(
        vocab_size=shape.vocab_size,
        BOS=0,
        tie_embedding=False,
        d_model=coarse.width,
        d_local=level.width,
        n_layers=shape.layers(fine=False),
        n_local_layers=shape.layers(fine=True),
        d_key=level.head_dim,
        patch_size=coarse.stride,
        context_size=-(-shape.positions // coarse.stride) * coarse.stride,
    )
    return _SpaceByteMegaByte(module.MegaByte(config), shape)


def _spacebyte(path: Path | None) -> ModuleType:
    """The module ``megabyte`` of a checkout, whose files import one another by names as common as ``util``."""
    if path is None or not (path / "megabyte.py").is_file():
        raise FoveateError(
            "peer spacebyte-megabyte is not a package: git clone https://github.com/kjslag/spacebyte, pip install "
            "tiktoken sentencepiece, and name the folder with --peer-path"
        )
    theirs = ("megabyte", "transformer", "rope", "util")
    hidden = {name: sys.modules.pop(name) for name in theirs if name in sys.modules}
    sys.path.insert(0, str(path))
    try:
        return importlib.import_module("megabyte")
    except ImportError as error:
        raise FoveateError(f"peer spacebyte-megabyte: {error}; pip install tiktoken sentencepiece") from None
    finally:
        sys.path.remove(str(path))
        for name in theirs:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


def _coarsest(shape: Shape, name: str) -> Level:
    if len(shape.spec.levels) < 2 or not shape.layers(fine=True) or not shape.layers(fine=False):
        raise _unlike(name, shape, "has layers at two levels, such as '0@1 8@8 4@1:window8'")
    return shape.spec.levels[-1]


def _unlike(name: str, shape: Shape, wanted: str) -> FoveateError:
    return FoveateError(
        f"peer {name} takes the shape of the first walk, and {str(shape.spec)!r} is not one for it; put one first "
        f"that {wanted}"
    )


def _package(name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise FoveateError(f"a peer needs {package}; pip install 'foveate[peers]'") from None
