"""What a model has read, on disk: one safetensors file, whose header says which model it is the state of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from foveate.errors import FoveateError
from foveate.files import is_disk_full, replacing
from foveate.hf.identity import fingerprint


def write_state(path: Path, what: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor], model: Any) -> None:
    """Write the state ``what`` of ``model``: beside ``path`` first, then in its place.

    Raises:
        FoveateError: the disk is full; what was at ``path`` is still there.
    """
    whole = {"fingerprint": fingerprint(model), **header}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            save_file(dict(tensors), beside, metadata={_key(what): json.dumps(whole)})
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        raise FoveateError(f"no space left for the {what} in {path}; free some, or save it elsewhere") from None


def read_state(path: Path, what: str, model: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of what ``write_state`` wrote, on the model's device.

    Raises:
        FoveateError: no such file, something else, or the state of another model, be it the same with other weights.
    """
    try:
        with safe_open(path, framework="pt", device=str(model.device)) as file:
            header = json.loads((file.metadata() or {}).get(_key(what), "null"))
            if header is None:
                raise FoveateError(f"{path} is not a saved {what}; write one with cache.save(path, model)")
            if header["fingerprint"] != fingerprint(model):
                raise FoveateError(f"{path} was read by another model; load it with the one that saved it")
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise FoveateError(f"{path} does not exist") from None
    except FoveateError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise FoveateError(f"{path} is not a saved {what}: {error}") from None


def _key(what: str) -> str:
    return f"foveate_{what.replace(' ', '_')}"
