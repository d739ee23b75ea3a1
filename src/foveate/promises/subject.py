"""The model that is checked, called in one way whatever it is: one of Hugging Face's kind, or any module ids → logits.

Shape legend: B batch rows, T columns, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import FoveateError, first_line

# what models call the state that they hand back and take again; `cache` is transformers 5.24's name
CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state", "past_buckets_states", "mems")
FINER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float64}


class NoLogitsError(RuntimeError):
    """An output that holds no logits of the columns that were read."""


def _parameters(model: nn.Module) -> list[str]:
    """What ``forward`` takes by name, and what it hands on to the model within it without naming it."""
    given = inspect.signature(model.forward).parameters
    names = list(given)
    inner = getattr(model, "base_model", None)
    if isinstance(inner, nn.Module) and inner is not model and any(p.kind is p.VAR_KEYWORD for p in given.values()):
        names += [name for name in inspect.signature(inner.forward).parameters if name not in names]
    return names


class Subject:
    """A model, what its ``forward`` takes by name, and which token ids it may be given.

    Raises:
        FoveateError: it is no module, has no vocabulary, or its output is no logits [B, T, V].
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        if not isinstance(model, nn.Module):
            raise FoveateError(f"a {type(model).__name__} cannot be checked; pass a torch.nn.Module, or a model's path")
        self.model = model
        self.tokenizer = tokenizer
        self.config: Any = getattr(model, "config", None)
        parameters = _parameters(model)
        self.takes = frozenset(parameters)
        cached = [name for name in CACHE_NAMES if name in parameters]
        self.cache_name = cached[0] if cached and ("use_cache" in parameters or cached[0] == "mems") else ""
        self.is_hf = hasattr(model, "config") and "input_ids" in parameters
        first = next(model.parameters(), None)
        self.device = first.device if first is not None else torch.device("cpu")
        self.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        self.vocab_size = self._vocabulary()
        self.names = {module: name for name, module in model.named_modules()}

    def embedding(self) -> nn.Module | None:
        """The module that turns ids into vectors: the one the model names, else the first embedding it has."""
        if self.is_hf:
            try:
                return self.model.get_input_embeddings()  # type: ignore[operator]
            except (NotImplementedError, AttributeError):
                pass
        return next((module for module in self.model.modules() if isinstance(module, nn.Embedding)), None)

    def _vocabulary(self) -> int:
        size = getattr(self.config, "vocab_size", None)
        if not isinstance(size, int):
            text = getattr(self.config, "get_text_config", lambda: None)()
            size = getattr(text, "vocab_size", None)
        if not isinstance(size, int):
            size = getattr(self.embedding(), "num_embeddings", None)
        if not isinstance(size, int):
            name = type(self.model).__name__
            raise FoveateError(f"{name} has no embedding of token ids, so there is no input to check it with")
        return size

    @property
    def padding_id(self) -> int:
        for owner in (self.tokenizer, self.config):
            given = getattr(owner, "pad_token_id", None)
            if isinstance(given, int) and 0 <= given < self.vocab_size:
                return given
        return 0

    def plain_ids(self) -> Tensor:
        """The ids [N] that rows are made of: those that no configuration gives a meaning of its own."""
        kept = torch.ones(self.vocab_size, dtype=torch.bool)
        for config in (self.config, getattr(self.config, "get_text_config", lambda: None)()):
            for name, value in vars(config).items() if config is not None else ():
                if name.endswith(("token_id", "token_index")):
                    for token in value if isinstance(value, list) else [value]:
                        if isinstance(token, int) and 0 <= token < self.vocab_size:
                            kept[token] = False
        ids = kept.nonzero()[:, 0]
        return ids if len(ids) > 1 else torch.arange(self.vocab_size)

    def call(self, ids: Tensor, **inputs: Any) -> Any:
        """What the model puts out for ids [B, T]: without a cache unless ``inputs`` ask for one, and without the ids if
        they hold ``inputs_embeds``."""
        if "use_cache" in self.takes:
            inputs.setdefault("use_cache", False)
        if not self.is_hf:
            return self.model(ids, **inputs)
        if "inputs_embeds" in inputs:
            return self.model(**inputs)
        return self.model(input_ids=ids, **inputs)

    def logits(self, output: Any, columns: int) -> Tensor:
        """The logits [B, T, V] in an output: itself, its field of that name, or the first of a tuple."""
        found = output
        if not isinstance(output, Tensor):
            found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
            if found is None and isinstance(output, list | tuple) and output:
                found = output[0]
        if not isinstance(found, Tensor) or found.dim() != 3 or found.shape[1] != columns:
            what = f"shape {list(found.shape)}" if isinstance(found, Tensor) else "none"
            name = type(self.model).__name__
            raise NoLogitsError(f"{name} gives no logits [batch, {columns} columns, vocabulary] but {what}")
        return found

    def cache_of(self, output: Any) -> Any:
        """The state an output hands back, or None."""
        for name in CACHE_NAMES:
            found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
            if found is not None:
                return found
        return None

    @property
    def quantized(self) -> bool:
        return any(not parameter.is_floating_point() for parameter in self.model.parameters())

    def finer(self) -> Subject | None:
        """A copy that computes in the next finer dtype, or None where there is none."""
        dtype = FINER.get(self.dtype)
        if dtype is None or self.quantized or (dtype == torch.float64 and self.device.type == "mps"):
            return None
        return self.copy_in(dtype)

    def copy_in(self, dtype: torch.dtype) -> Subject:
        """A copy with all parameters and buffers in ``dtype``. What a buffer was computed from stays in it."""
        return Subject(copy.deepcopy(self.model).to(dtype), self.tokenizer)

    def try_out(self) -> None:
        """Raises a FoveateError unless two tokens give finite logits."""
        ids = self.plain_ids()[:2][None].to(self.device)
        with torch.no_grad():
            try:
                logits = self.logits(self.call(ids), 2)
            except (FoveateError, MemoryError, torch.OutOfMemoryError):
                raise
            except NoLogitsError as error:
                raise FoveateError(f"{error}; pass a causal language model") from None
            except Exception as error:  # of which kind depends on the model
                if "allocate memory" in str(error):
                    raise
                name = type(self.model).__name__
                raise FoveateError(
                    f"{name} cannot read two tokens: {type(error).__name__}: {first_line(error)}"
                ) from error
        if not logits.isfinite().all():
            raise FoveateError(f"{type(self.model).__name__} gives logits that are no numbers for two plain tokens")
