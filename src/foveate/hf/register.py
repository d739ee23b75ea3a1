"""Tells transformers' Auto classes, and PEFT, about Foveate, without importing them before the user does.

``import foveate`` has to be quick, and importing the Auto classes takes seconds. So they are told when they are
imported: at once if they already are, else right after their modules have run.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# what looks models up by the name of their class, and not in the Auto classes: Trainer's label smoothing, pipelines
NAMES = {
    "MODEL_MAPPING_NAMES": "FoveateModel",
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "FoveateForCausalLM",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": "FoveateForSequenceClassification",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": "FoveateForTokenClassification",
}
# of a Llama, whose projections are not fused
PROJECTIONS = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "mlp_norm",
}


def _register_config() -> None:
    from transformers import AutoConfig

    from foveate.hf.configuration_foveate import FoveateConfig

    AutoConfig.register("foveate", FoveateConfig, exist_ok=True)


def _register_model() -> None:
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )
    from transformers.models.auto import modeling_auto

    from foveate.hf.classification import FoveateForSequenceClassification, FoveateForTokenClassification
    from foveate.hf.configuration_foveate import FoveateConfig
    from foveate.hf.modeling_foveate import FoveateForCausalLM, FoveateModel

    AutoModel.register(FoveateConfig, FoveateModel, exist_ok=True)
    AutoModelForCausalLM.register(FoveateConfig, FoveateForCausalLM, exist_ok=True)
    AutoModelForSequenceClassification.register(FoveateConfig, FoveateForSequenceClassification, exist_ok=True)
    AutoModelForTokenClassification.register(FoveateConfig, FoveateForTokenClassification, exist_ok=True)
    for table, name in NAMES.items():
        getattr(modeling_auto, table)["foveate"] = name


def _register_targets() -> None:
    """Give PEFT's methods the modules to adapt by default: those they adapt in a Llama."""
    from peft.utils import constants

    for table in vars(constants).values():
        if isinstance(table, dict) and isinstance(table.get("llama"), list):
            table.setdefault("foveate", sorted({PROJECTIONS.get(name, name) for name in table["llama"]}))


AFTER_IMPORT: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_model,
    "peft.utils.constants": _register_targets,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules of AFTER_IMPORT as usual, and calls their function once they have run."""

    def __init__(self) -> None:
        self.waiting = dict(AFTER_IMPORT)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        then = self.waiting.pop(name, None)  # popped first: the look-up below comes through here again
        if then is None:
            return None
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_then_register(module: ModuleType) -> None:
            run(module)
            then()

        spec.loader.exec_module = run_then_register  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Register configuration and models with the Auto classes, and with PEFT, now or when these are imported."""
    finder = _AfterImport()
    for name, then in AFTER_IMPORT.items():
        if name in sys.modules:
            del finder.waiting[name]
            then()
    if finder.waiting:
        sys.meta_path.insert(0, finder)
