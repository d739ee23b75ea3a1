"""A cache on disk: one safetensors file, whose header says which model has read what."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from foveate.errors import FoveateError
from foveate.files import replacing

if TYPE_CHECKING:
    from foveate.hf.cache import FoveateCache

HEADER = "foveate_cache"
SAMPLED = 64  # values of each parameter that tell one training's weights from another's


def fingerprint(model: Any) -> str:
    """Of a model's walk, shapes, type and weights, these by a few values of each parameter."""
    digest = hashlib.sha256(json.dumps(model.config.spec.to_json(), sort_keys=True).encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        values = parameter.detach().flatten()
        digest.update(values[:: max(1, len(values) // SAMPLED)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def save_cache(cache: FoveateCache, path: Path, model: Any) -> None:
    steps = cache.steps
    tensors = {}
    for index, tape in enumerate(steps.tapes):
        if tape.data is not None:
            used = tape.slots_needed(steps.longest // tape.stride)  # the rest is room to grow
            tensors[f"tape.{index}"] = tape.data[..., :used, :].contiguous()
    header = {
        "fingerprint": fingerprint(model),
        "batch": steps.batch,
        "seen": cache.seen,
        "unpadded": cache.unpadded,
        **{name: np.asarray(value).tolist() for name, value in steps.counts().items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        save_file(tensors, beside, metadata={HEADER: json.dumps(header)})


def load_cache(path: Path, model: Any) -> FoveateCache:
    try:
        with safe_open(path, framework="pt", device=str(model.device)) as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
            if header is None:
                raise FoveateError(f"{path} is not a saved cache; write one with cache.save(path, model)")
            if header["fingerprint"] != fingerprint(model):
                raise FoveateError(f"{path} was read by another model; load it with the one that saved it")
            tensors = {int(name.removeprefix("tape.")): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise FoveateError(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise FoveateError(f"{path} is not a saved cache: {error}") from None
    cache: FoveateCache = model.make_cache(header["batch"])
    cache.seen, cache.unpadded = header["seen"], header["unpadded"]
    cache.steps.restore(header, tensors)
    return cache
