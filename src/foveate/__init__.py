"""Multi-scale language models: recent text sharp, distant text coarse."""

from typing import TYPE_CHECKING, Any

from foveate.hf.register import register
from foveate.spec import Expand, HierarchySpec, Level, Pool, Run

if TYPE_CHECKING:
    from foveate.converting import convert
    from foveate.hf.cache import FoveateCache
    from foveate.hf.compiling import compile_decoding
    from foveate.hf.configuration_foveate import FoveateConfig
    from foveate.hf.modeling_foveate import FoveateForCausalLM
    from foveate.hf.stream import stream, stream_batch
    from foveate.hf.zoom import zoom
    from foveate.hf.zoom_cache import ZoomCache
    from foveate.loading import load
    from foveate.loading.decoding import load_for_decoding
    from foveate.probes.plan import ShufflePlan
    from foveate.probes.rare_words import probe_rare
    from foveate.probes.shuffle import probe_shuffle
    from foveate.probes.truncate import TruncatePlan, probe_truncate
    from foveate.probes.word_loss import Reader
    from foveate.promises.check import check
    from foveate.spec.zoom_plan import ZoomPlan

__version__ = "0.1.0"

__all__ = [
    "Expand",
    "FoveateCache",
    "FoveateConfig",
    "FoveateForCausalLM",
    "HierarchySpec",
    "Level",
    "Pool",
    "Reader",
    "Run",
    "ShufflePlan",
    "TruncatePlan",
    "ZoomCache",
    "ZoomPlan",
    "check",
    "compile_decoding",
    "convert",
    "load",
    "load_for_decoding",
    "probe_rare",
    "probe_shuffle",
    "probe_truncate",
    "stream",
    "stream_batch",
    "zoom",
]

_LAZY = {
    "FoveateCache": "foveate.hf.cache",
    "FoveateConfig": "foveate.hf.configuration_foveate",
    "FoveateForCausalLM": "foveate.hf.modeling_foveate",
    "Reader": "foveate.probes.word_loss",
    "ShufflePlan": "foveate.probes.plan",
    "TruncatePlan": "foveate.probes.truncate",
    "ZoomCache": "foveate.hf.zoom_cache",
    "ZoomPlan": "foveate.spec.zoom_plan",
    "check": "foveate.promises.check",
    "compile_decoding": "foveate.hf.compiling",
    "convert": "foveate.converting",
    "load": "foveate.loading",
    "load_for_decoding": "foveate.loading.decoding",
    "probe_rare": "foveate.probes.rare_words",
    "probe_shuffle": "foveate.probes.shuffle",
    "probe_truncate": "foveate.probes.truncate",
    "stream": "foveate.hf.stream",
    "stream_batch": "foveate.hf.stream",
    "zoom": "foveate.hf.zoom",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'foveate' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _keep_where_it_was(module: str, name: str, now: str) -> None:
    """``from module import name`` still finds what has moved to ``now``; nothing is imported before it is asked for."""
    from importlib import import_module
    from sys import modules
    from types import ModuleType

    def find(asked: str) -> Any:
        if asked != name:
            raise AttributeError(f"module {module!r} has no attribute {asked!r}")
        return getattr(import_module(now), name)

    package, _, last = module.rpartition(".")
    modules[module] = ModuleType(module, f"``{name}`` is in ``{now}`` now.")
    vars(modules[module])["__getattr__"] = find
    setattr(modules[package], last, modules[module])


_keep_where_it_was("foveate.hf.convert", "from_llama", now="foveate.converting")
register()
