"""Memory side by side: what training keeps and takes, what decoding carries, and what was predicted of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from foveate.bench.decode import READ_FLOPS
from foveate.bench.engines import FoveateEngine
from foveate.bench.memory import measure_training_memory
from foveate.bench.peers import Contender
from foveate.bench.room import has_room
from foveate.bench.train import step_bytes
from foveate.cost import FP32, FP32_COPIES, Load, predict
from foveate.spec import Fovea


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of one model in training on, and in decoding after, ``batch`` sequences of ``context`` tokens.

    Attributes:
        saved_bytes: saved by autograd for the backward, parameters apart, as saved-tensor hooks see it. A fovea has
            hooks of its own, which hide some from others': there, all that is alive after the forward.
        kept_bytes: all that is alive after the forward and was not before, counted another way.
        training_state_bytes: parameters, gradients and Adam's moments.
        counted_peak_bytes: the most that all tensors of a training step took at one time.
        peak_bytes: the most that a process which trains the model took, beyond what it had before it built it: of its
            resident set, on a GPU of what was allocated there. None if not measured.
        state_bytes: kept to go on decoding, what is reserved ahead included; None where reading so far takes too long.
        predicted: the same from ``foveate.cost``; None for a model that is no walk.
        saved_ratio, peak_ratio, state_ratio: to those of the model ``against``; None where one of them is missing.
    """

    name: str
    walk: str | None
    context: int
    batch: int
    dtype: str
    saved_bytes: int
    kept_bytes: int
    training_state_bytes: int
    counted_peak_bytes: int
    peak_bytes: int | None
    state_bytes: int | None
    weight_bytes: int
    predicted: dict[str, int] | None
    against: str
    saved_ratio: float | None
    peak_ratio: float | None
    state_ratio: float | None
    device: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_footprints(
    contenders: Mapping[str, Contender],
    *,
    context: int,
    batch: int,
    dtype: torch.dtype,
    peak: Callable[[str], int | None] = lambda name: None,
    against: str | None = None,
    note: Callable[[str], Any] = lambda line: None,
) -> list[Footprint]:
    """Measure each model; one that finds no memory is left out.

    Args:
        contenders: models with weights in fp32, as they are trained; a step of training changes them.
        dtype: of the cache, and of autocast where it has 16 bits.
        peak: measures the peak of the model of that name.
        against: the model that ratios are to; by default the first.
    """
    measured: list[dict[str, Any]] = []
    for name, given in contenders.items():
        bf16, model = dtype != torch.float32, given.model
        params = sum(p.numel() for p in model.parameters())
        device = next(model.parameters()).device
        # twice: the process that finds the peak holds all that this one does
        needed = 2 * (FP32_COPIES * FP32 * params + step_bytes(given, batch, context, bf16))
        if not has_room(needed, device, f"{name} at {batch} x {context:,} tokens", note):
            continue
        note(f"{name}: counting a training step of {batch} x {context:,} tokens")
        training = measure_training_memory(model, name=name, batch=batch, context=context, bf16=bf16, spare=False)
        measured.append(
            {
                "name": name,
                "walk": given.walk,
                "context": context,
                "batch": batch,
                "dtype": str(dtype).removeprefix("torch."),
                "saved_bytes": training.kept_bytes if _has_hooks(given) else training.saved_bytes,
                "kept_bytes": training.kept_bytes,
                "training_state_bytes": training.state_bytes,
                "counted_peak_bytes": training.peak_bytes,
                "peak_bytes": peak(name),
                "state_bytes": _state_bytes(given, batch, context, dtype, note),
                "weight_bytes": params * dtype.itemsize,
                "predicted": _predicted(given, batch, context, dtype),
                "device": training.device,
            }
        )
    against = against or next(iter(contenders))
    reference = next((each for each in measured if each["name"] == against), {})
    ratios = {"saved_ratio": "saved_bytes", "peak_ratio": "peak_bytes", "state_ratio": "state_bytes"}
    return [
        Footprint(**each, against=against, **{r: _ratio(each[of], reference.get(of)) for r, of in ratios.items()})
        for each in measured
    ]


def _ratio(value: float | None, reference: float | None) -> Any:
    return None if value is None or not reference else value / reference


def _has_hooks(given: Contender) -> bool:
    ours = given.spec if given.engine is FoveateEngine else None
    return ours is not None and any(run.layers and isinstance(run.attention, Fovea) for run in ours.runs)


@torch.inference_mode()
def _state_bytes(
    given: Contender, batch: int, context: int, dtype: torch.dtype, note: Callable[[str], Any]
) -> int | None:
    engine = given.engine(given.model.to(dtype), batch, given.spec)
    engine.prepare(context)
    held = has_room(engine.bytes_to_hold(context), engine.device, f"{context:,} tokens of cache", note)
    if held and not engine.fill(context):
        held = engine.flops_to_read(context) <= READ_FLOPS
        if held:
            engine.read(torch.zeros((batch, context), dtype=torch.long, device=engine.device))
    given.model.to(torch.float32)
    return engine.state_bytes if held else None


def _predicted(given: Contender, batch: int, context: int, dtype: torch.dtype) -> dict[str, int] | None:
    if given.spec is None:
        return None
    model: Any = given.model
    load = Load(
        context=context,
        vocab_size=model.config.get_text_config().vocab_size,
        batch=batch,
        dtype=str(dtype).removeprefix("torch."),
    )
    cost = predict(given.spec, load)
    return {
        "saved_bytes": cost.total.backward_bytes,
        "training_bytes": cost.training_bytes,
        "state_bytes": cost.total.cache_bytes,
        "weight_bytes": cost.weight_bytes,
    }
