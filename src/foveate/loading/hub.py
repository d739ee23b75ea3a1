"""Models by their name on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from foveate.errors import FoveateError, first_line

# no code, and of the weights only what cannot hold any
WANTED = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "vocab.txt", "*.jinja")


def is_hub_name(path: str | Path) -> bool:
    """Whether ``path`` can only be a name on the hub, ``OWNER/NAME``: nothing of that name lies here."""
    found = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(path))
    return found is not None and not Path(path).exists()


def fetch_model(name: str) -> Path:
    """The folder of the model ``OWNER/NAME`` in the hub's cache, after fetching what is not yet there.

    Raises:
        FoveateError: it is not there and the hub cannot be reached, or has none of that name, or none as safetensors.
    """
    from huggingface_hub import snapshot_download

    from foveate.data.hub import hub_is_reachable

    online = hub_is_reachable()
    try:
        folder = Path(snapshot_download(name, allow_patterns=list(WANTED), local_files_only=not online))
    except Exception as error:  # of which kind depends on the name, on access rights and on the network
        reason = first_line(error) if online else "and the hub cannot be reached"
        raise FoveateError(f"there is no model at {name}: no such directory, {reason}") from None
    if not any(folder.glob("*.safetensors")):
        raise FoveateError(f"{name} on the hub has no weights as safetensors; convert it with save_pretrained() first")
    return folder
