"""``foveate.zoom``: any rotary decoder of transformers reads far text as thumbnails, opened where its queries look.

Behind transformers' attention interface and a ``Cache``: no weight and no module changes, and all is undone at will.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, Cache, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from foveate.errors import FoveateError, first_line, shown
from foveate.hf import zoom_attention as interface
from foveate.hf.zoom_cache import ZOOMED, ZoomCache
from foveate.zooming import Keeping, ZoomPlan

if TYPE_CHECKING:
    from torch import nn

NO_CACHE = "zoom keeps its own cache"


def zoom(
    model: Any,
    plan: ZoomPlan | Sequence[ZoomPlan | None] | None = None,
    *,
    dense: Collection[int] = (),
    bits: int | None = None,
    offload: str | None = None,
    **settings: Any,
) -> Zoomed:
    """Make ``model`` zoom, once for all or as a context manager: ``with foveate.zoom(model): …``.

    Training reads each text at once, with gradients. Without gradients the model keeps a ``ZoomCache``; every mode of
    ``generate`` works with it, and a filled one saves and loads (``ZoomCache.save``).

    Args:
        model: a decoder of transformers with rotary positions; layers with a sliding window keep it.
        plan: how to zoom, for all layers or one for each; by default ``ZoomPlan(**settings)``.
        dense: layers that read everything as before.
        bits: 8: the cache keeps keys and values in 8 bits and a scale for each vector.
        offload: the cache keeps them off the device: ``"cpu"`` in main memory, ``"disk"`` in a file for the time being;
            sinks and means of groups stay, and what a query reads is brought.
        settings: the fields of ``ZoomPlan``, by name.

    Returns:
        The change: ``undo()`` takes it back, ``cache()`` makes an empty cache.

    Raises:
        FoveateError: a model that zoom cannot serve, and why.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    _check(model)
    layers = model.config.num_hidden_layers
    plans = _plans(plan, dense, settings, layers)
    zoomed = Zoomed(model, plans, Keeping(bits=bits, offload=offload))
    try:
        zoomed.begin()
    except BaseException:
        zoomed.undo()
        raise
    return zoomed


class Zoomed:
    """A model that zooms, until ``undo``."""

    def __init__(self, model: PreTrainedModel, plans: Sequence[ZoomPlan | None], keeping: Keeping) -> None:
        self.model: Any = model
        self.plans, self.keeping = list(plans), keeping
        self._before: str | None = None
        self._hooks: list[Any] = []
        self._modules: list[nn.Module] = []

    def __enter__(self) -> Any:
        return self.model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def cache(self) -> ZoomCache:
        """An empty cache, to pass to the model or ``generate``."""
        return ZoomCache(self.model.config, self.plans, self.keeping)

    def begin(self) -> None:
        model = self.model
        AttentionInterface.register(interface.NAME, interface.zoom_forward)
        ALL_MASK_ATTENTION_FUNCTIONS.register(interface.NAME, interface.padding_mask)
        self._before = model.config._attn_implementation
        model.set_attn_implementation(interface.NAME)
        if model.config._attn_implementation != interface.NAME:
            raise FoveateError(f"{type(model).__name__} does not attend through transformers' attention interface")
        self._modules = _attending(model)
        if len(self._modules) != len(self.plans):
            raise FoveateError(
                f"{type(model).__name__}: {len(self._modules)} of {len(self.plans)} layers attend through "
                "transformers' attention interface; recurrent layers and attention of their own are not zoomed"
            )
        for module, plan in zip(self._modules, self.plans, strict=True):
            setattr(module, interface.PLAN, plan)
        self.cache()  # refuses kinds of layers it has no cache for
        self._hooks.append(model.base_model.register_forward_pre_hook(self._before_forward, with_kwargs=True))
        prepare = model._prepare_cache_for_generation

        def prepare_cache(generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            kind = generation_config.cache_implementation
            if kind not in (None, "dynamic"):
                raise FoveateError(f"cache_implementation={shown(kind)}: {NO_CACHE}; leave it out")
            result = prepare(generation_config, model_kwargs, *args, **kwargs)
            for name, value in model_kwargs.items():
                if _is_empty(value):
                    model_kwargs[name] = self.cache()
            return result

        model._prepare_cache_for_generation = prepare_cache
        setattr(model, ZOOMED, self)

    def undo(self) -> None:
        """The model attends as before."""
        if self._before is None:
            return
        self.model.set_attn_implementation(self._before)
        self._before = None
        for hook in self._hooks:
            hook.remove()
        for module in self._modules:
            if hasattr(module, interface.PLAN):
                delattr(module, interface.PLAN)
        for name in ("_prepare_cache_for_generation", ZOOMED):
            self.model.__dict__.pop(name, None)

    def _before_forward(self, module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Give the backbone a zoom cache where it would make its own."""
        if kwargs.get("output_attentions"):
            raise FoveateError("output_attentions=True: zoom makes no matrix of attention weights")
        name = "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"
        if any(isinstance(value, ZoomCache) for value in kwargs.values()):
            return None  # under its old name too
        cache = kwargs.get(name)
        use_cache = kwargs.get("use_cache")
        wanted = self.model.config.use_cache if use_cache is None else use_cache
        if cache is None and not wanted:
            return None
        if cache is not None and not _is_empty(cache):
            return None  # a cache with all keys in it: read as a whole text's, each time
        if torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters()):
            return None  # a state written in place has no gradients: the text is read as a whole
        kwargs[name] = self.cache()
        return args, kwargs


def _is_empty(value: Any) -> bool:
    return isinstance(value, Cache) and not isinstance(value, ZoomCache) and not value.get_seq_length()


def _check(model: Any) -> None:
    if not isinstance(model, PreTrainedModel):
        raise FoveateError(f"zoom takes a model of transformers, not a {type(model).__name__}")
    config, name = model.config, type(model).__name__
    if getattr(model, ZOOMED, None) is not None:
        raise FoveateError(f"{name} zooms already; undo() it first")
    if config.model_type == "foveate":
        raise FoveateError(
            "a Foveate model reads far text as its walk says (:fovea, :window256); zoom is for other models"
        )
    if config.is_encoder_decoder or getattr(config, "add_cross_attention", False):
        raise FoveateError(f"{name} has cross attention: zoom serves decoders alone")
    if config.get_text_config(decoder=True) is not config:
        raise FoveateError(f"{name} reads more than text: pass its language model alone")
    if getattr(config, "kv_lora_rank", None):
        raise FoveateError(f"{name} has latent attention (MLA), whose keys zoom cannot sort")
    if getattr(config, "alibi", False):
        raise FoveateError(f"{name} has ALiBi: its scores depend on distance, so its keys have no order of their own")
    if not any("rotary" in type(module).__name__.lower() for module in model.modules()):
        raise FoveateError(
            f"{name} has no rotary positions: ALiBi, learned positions and recurrent models are not zoomed"
        )


def _plans(
    plan: ZoomPlan | Sequence[ZoomPlan | None] | None, dense: Collection[int], settings: dict[str, Any], layers: int
) -> list[ZoomPlan | None]:
    if plan is not None and settings:
        raise FoveateError(f"zoom: {next(iter(settings))} belongs into the plan that is given")
    if plan is None:
        try:
            plan = ZoomPlan(**settings)
        except TypeError as error:
            raise FoveateError(f"zoom: {first_line(error)}") from None
    plans: list[ZoomPlan | None] = [plan] * layers if isinstance(plan, ZoomPlan) else list(plan)
    if len(plans) != layers:
        raise FoveateError(f"zoom: {len(plans)} plans for a model of {layers} layers")
    for layer in dense:
        if not isinstance(layer, int) or not 0 <= layer < layers:
            raise FoveateError(f"zoom: dense={shown(dense)} names no layer of 0 to {layers - 1}")
        plans[layer] = None
    return plans


@torch.no_grad()
def _attending(model: PreTrainedModel) -> list[Any]:
    """The modules that call the attention function, in the order of the layers: one token through the model shows."""
    interface.probed = []
    try:
        with torch.random.fork_rng(devices=[]):
            # 8 tokens, so that nothing is one by chance
            model.base_model(input_ids=torch.zeros(1, 8, dtype=torch.long, device=model.device), use_cache=False)
        return interface.probed
    finally:
        interface.probed = None
