"""Which model it is: by what what was computed with it is known again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

SAMPLED = 64  # values of each parameter that tell one training's weights from another's


def fingerprint(model: Any) -> str:
    """Of a model's walk or class, shapes, types and weights, these by a few values of each parameter: quick."""
    spec = getattr(model.config, "spec", None)
    kind = type(model).__name__ if spec is None else json.dumps(spec.to_json(), sort_keys=True)
    digest = hashlib.sha256(kind.encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        values = parameter.detach().flatten()
        digest.update(values[:: max(1, len(values) // SAMPLED)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def weights_digest(model: Any) -> str:
    """Of all weights, in the precision they have; empty for what has none."""
    if not hasattr(model, "state_dict"):
        return ""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
