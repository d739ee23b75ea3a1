"""A zoom cache on disk: one safetensors file, whose header says which model has read what, and how it zooms."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from foveate.errors import FoveateError
from foveate.files import replacing
from foveate.hf.zoom_cache import ZoomLayer, fill_layer, layer_tensors

if TYPE_CHECKING:
    from foveate.hf.zoom_cache import ZoomCache

HEADER = "foveate_zoom_cache"
SAMPLED = 64  # values of each parameter that tell one training's weights from another's


def fingerprint(model: Any) -> str:
    """Of a model's class, shapes, types and weights, these by a few values of each parameter."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        values = parameter.detach().flatten()
        digest.update(values[:: max(1, len(values) // SAMPLED)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _plans(cache: ZoomCache) -> list[Any]:
    plans = [layer.state.plan if isinstance(layer, ZoomLayer) else None for layer in cache.layers]
    listed: list[Any] = json.loads(json.dumps([plan and asdict(plan) for plan in plans]))
    return listed


def save(cache: ZoomCache, path: Path, model: Any) -> None:
    counts, tensors = [], {}
    for index, layer in enumerate(cache.layers):
        held, named = layer_tensors(layer)
        counts.append(held)
        tensors.update({f"{index}.{name}": tensor for name, tensor in named.items()})
    header = {"fingerprint": fingerprint(model), "plans": _plans(cache), "layers": counts}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        save_file(tensors, beside, metadata={HEADER: json.dumps(header)})


def load(path: Path, model: Any) -> ZoomCache:
    from foveate.hf.zoom import cache_of

    cache = cache_of(model)
    try:
        with safe_open(path, framework="pt", device=str(model.device)) as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
            if header is None:
                raise FoveateError(f"{path} is not a saved zoom cache; write one with cache.save(path, model)")
            if header["fingerprint"] != fingerprint(model):
                raise FoveateError(f"{path} was read by another model; load it with the one that saved it")
            if header["plans"] != _plans(cache):
                raise FoveateError(f"{path} was read with other settings of zoom than the model has now")
            named: list[dict[str, Any]] = [{} for _ in cache.layers]
            for name in file.keys():  # noqa: SIM118
                index, what = name.split(".", 1)
                named[int(index)][what] = file.get_tensor(name)
    except FileNotFoundError:
        raise FoveateError(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, FoveateError):
            raise
        raise FoveateError(f"{path} is not a saved zoom cache: {error}") from None
    for layer, counts, tensors in zip(cache.layers, header["layers"], named, strict=True):
        fill_layer(layer, counts, tensors)
    return cache
