"""From a model of transformers to a Foveate model that computes the same, or begins near it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM, PreTrainedModel

from foveate.converting.families import read_source
from foveate.converting.placement import place
from foveate.converting.source import Source
from foveate.hf.configuration_foveate import FoveateConfig
from foveate.hf.modeling_foveate import FoveateForCausalLM
from foveate.loading import load_model
from foveate.presets import resolve_walk


def convert(
    model: PreTrainedModel | str | Path,
    walk: str | None = None,
    *,
    context: int | None = None,
    pooling: str = "mean",
    expanding: str = "repeat",
) -> FoveateForCausalLM:
    """A Foveate model with the weights of another.

    Args:
        model: of a known family, or its folder, name on the hub, or ``.gguf`` file.
        walk: for as many layers as the model has, which are placed in order along it; None: all on tokens, each
            looking back as it does there, so that the model computes what ``model`` computes.
        context: tokens of a text for which rotary positions are fixed that depend on it (rope_type dynamic and
            longrope); by default those that the source was first trained for.
        pooling, expanding: how the walk moves between levels.

    Raises:
        FoveateError: no known family, a setting that no walk can represent, by name, or another number of layers.
    """
    if not isinstance(model, PreTrainedModel):
        model = load_model(model, device="cpu")
    return build(model, read_source(model, context), walk, pooling=pooling, expanding=expanding)


def build(
    model: PreTrainedModel, source: Source, walk: str | None, *, pooling: str, expanding: str
) -> FoveateForCausalLM:
    """What ``convert`` makes of a model that is there, and of what was read of it."""
    placed = place(source, None if walk is None else resolve_walk(walk))
    config = FoveateConfig(
        walk=" ".join(str(run) for run, _ in placed), pooling=pooling, expanding=expanding, **source.settings
    )
    made: Any = FoveateForCausalLM(config)
    made.to(device=model.device, dtype=model.dtype)
    _fill(made, source, [layers for _, layers in placed])
    made.generation_config = copy.deepcopy(model.generation_config)
    return made.train(model.training)


def from_llama(llama: LlamaForCausalLM) -> FoveateForCausalLM:
    """The plain walk that computes what ``llama`` computes; see ``convert``."""
    return convert(llama)


def _fill(model: FoveateForCausalLM, source: Source, layers: list[tuple[int, ...]]) -> None:
    """Give ``model`` the weights of its source: those of the layers named for each run, and the ends."""
    new = dict(source.ends)
    runs = [at for at, step in enumerate(model.config.spec.steps) if hasattr(step, "layers")]
    for at, of_run in zip(runs, layers, strict=True):
        for place_in_run, i in enumerate(of_run):
            prefix = f"model.decoder.steps.{at}.layers.{place_in_run}"
            new |= {f"{prefix}.{name}": weight for name, weight in source.layers[i].weights.items()}
    report: Any = model.load_state_dict(new, strict=False)
    ours = {name for name, _ in model.named_parameters() if ".layers." in name and ".attention.pools" not in name}
    assert not report.unexpected_keys and not ours & set(report.missing_keys), report
