"""Tells transformers' Auto classes about Foveate, without importing transformers before the user does.

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


def _register_config() -> None:
    from transformers import AutoConfig

    from foveate.hf.configuration_foveate import FoveateConfig

    AutoConfig.register("foveate", FoveateConfig, exist_ok=True)


def _register_model() -> None:
    from transformers import AutoModelForCausalLM

    from foveate.hf.configuration_foveate import FoveateConfig
    from foveate.hf.modeling_foveate import FoveateForCausalLM

    AutoModelForCausalLM.register(FoveateConfig, FoveateForCausalLM, exist_ok=True)


AFTER_IMPORT: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_model,
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
    """Register the configuration and the model with the Auto classes, now or when these are imported."""
    finder = _AfterImport()
    for name, then in AFTER_IMPORT.items():
        if name in sys.modules:
            del finder.waiting[name]
            then()
    if finder.waiting:
        sys.meta_path.insert(0, finder)
