"""Datasets from the Hugging Face hub, named ``hf:NAME[:CONFIG][:SPLIT]``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError

PREFIX = "hf:"
ROWS_AT_ONCE = 256


def hub_is_reachable() -> bool:
    """Ask once, at once: the hub's own clients try again for most of a minute before they give up."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # of which kind depends on the client library, and on offline mode
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """One split of a dataset on the hub, or in a local folder that the datasets library can read."""

    name: str  # as the user wrote it, with the prefix

    def documents(self, text_field: str) -> Iterator[str]:
        """Each row's text. Raises FoveateError where a row has none."""
        columns = _load(self.name).column_names
        if text_field not in columns:
            raise FoveateError(
                f"{self.name} has no field {text_field!r}; it has {', '.join(columns)}; choose one with --text-field"
            )
        number = 0
        for rows in _load(self.name).select_columns([text_field]).iter(ROWS_AT_ONCE):
            for text in rows[text_field]:
                number += 1
                if not isinstance(text, str):
                    raise FoveateError(
                        f"{self.name}: row {number}: the field {text_field!r} holds {type(text).__name__}, not text"
                    )
                yield text

    def pieces(self, text_field: str) -> Iterator[str]:
        """The same: rows are small enough."""
        return self.documents(text_field)

    def stream(self, text_field: str, place: Any = None) -> Iterator[tuple[Any, str]]:
        """Each row's text as it is fetched, with its place; from the row of ``place`` on.

        Raises:
            FoveateError: as ``documents``, or the dataset cannot be reached any more.
        """
        rows = _open(self.name, streaming=True)
        if place is not None:
            rows.load_state_dict(place)
        place = rows.state_dict()
        try:
            for row in rows:
                text = row.get(text_field)
                if not isinstance(text, str):
                    raise FoveateError(
                        f"{self.name}: a row has no text in the field {text_field!r}; its fields are {', '.join(row)}; "
                        f"choose one with --text-field"
                    )
                yield place, text
                place = rows.state_dict()
        except OSError as error:  # the network's errors among them
            raise FoveateError(f"{self.name} cannot be read on: {' '.join(str(error).split())[:300]}") from error

    def fingerprint(self) -> str:
        """Changes with the dataset's contents."""
        known = _load(self.name)._fingerprint
        return f"saved {known}" if is_saved_dataset(_place(self.name)) else f"{self.name} {known}"


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` of the datasets library has made a folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")) and (
        (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()
    )


def _place(name: str) -> Path:
    return Path(name.removeprefix(PREFIX)).expanduser()


@lru_cache(maxsize=8)
def _load(name: str) -> Any:
    return _open(name)


def _open(name: str, **options: Any) -> Any:
    try:
        import datasets
    except ImportError:
        raise FoveateError(f"{name}: this takes the package datasets; install foveate[hub]") from None
    if is_saved_dataset(_place(name)):
        return _open_saved(name, _place(name), **options)
    from huggingface_hub import constants

    path, config, split = [*name.removeprefix(PREFIX).split(":", 2), "", ""][:3]
    if not path:
        raise FoveateError(f"{name!r} names no dataset; write hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT")
    if not (Path(path).exists() or constants.HF_HUB_OFFLINE or hub_is_reachable()):
        raise FoveateError(
            f"{name}: the hub cannot be reached; go online, or set HF_HUB_OFFLINE=1 to use a dataset that was "
            f"downloaded before"
        )
    try:
        return datasets.load_dataset(path, config or None, split=split or "train", **options)
    except Exception as error:  # of which kind depends on the dataset's own format and on the network
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise FoveateError(f"{name} cannot be loaded: {reason}") from error


def _open_saved(name: str, folder: Path, *, streaming: bool = False) -> Any:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # of which kind depends on what of the folder is damaged
        raise FoveateError(f"{name} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if isinstance(saved, datasets.DatasetDict):
        parts = ", ".join(str(folder / part) for part in saved)
        raise FoveateError(f"{folder} holds several splits; name those to read: {parts}")
    return saved.to_iterable_dataset() if streaming else saved
