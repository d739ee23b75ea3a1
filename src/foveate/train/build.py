"""From settings to a model: its configuration, its precision, and whether one step of it fits into memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
from torch import nn

from foveate.cost import Load, predict
from foveate.errors import FoveateError
from foveate.shape import config_values, spec_from_config
from foveate.spec import FULL, HierarchySpec
from foveate.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def spec_of(settings: TrainSettings) -> HierarchySpec:
    return spec_from_config(config_values(settings))


def build_model(settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A freshly initialised model of the settings' shape; the same seed gives the same weights.

    Raises:
        FoveateError: ``--model llama`` with a walk that a plain transformer cannot walk.
    """
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(settings.seed)
    return AutoModelForCausalLM.from_config(_configuration(settings, tokenizer), dtype=torch.float32)


def _configuration(settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    from foveate.data.tokenizer import vocabulary_size

    shared = {
        "vocab_size": vocabulary_size(tokenizer),
        "max_position_embeddings": settings.context,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    if settings.model == "foveate":
        from foveate.hf.configuration_foveate import FoveateConfig

        return FoveateConfig(**config_values(settings), **shared)
    from transformers import LlamaConfig

    spec = spec_of(settings)
    if spec.strides != (1,) or any(run.attention != FULL for run in spec.runs):
        raise FoveateError(f"--model llama is plain: walk '{spec}' has other scales; write for example --walk 12@1")
    level = spec.level(1)
    return LlamaConfig(
        hidden_size=level.width,
        num_hidden_layers=spec.n_layers,
        num_attention_heads=level.heads,
        num_key_value_heads=level.kv_heads,
        intermediate_size=level.feed_forward,
        **shared,
    )


def count_parameters(model: PreTrainedModel) -> int:
    """Parameters of the layers: without the embedding and a head tied to it."""
    embedding = model.get_input_embeddings().weight
    return sum(parameter.numel() for parameter in model.parameters() if parameter is not embedding)


def decayed_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that weight decay is for: matrices that multiply.

    Norms, biases, start vectors and embeddings are not; a head tied to the embedding counts as the embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) not in embeddings
    ]


def pick_dtype(dtype: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``: ``auto`` takes bf16 where the hardware multiplies in it, which is where it pays.

    These are GPUs that have bf16 themselves, and CPUs with AMX or AVX-512 bf16 instructions: there a training step was
    1.8 to 2.7 times as fast, the more so the wider the model (64 to 512).
    """
    if dtype != "auto":
        return dtype
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported() else "fp32"
    return "fp32"


def check_memory(settings: TrainSettings, vocabulary: int, device: torch.device) -> None:
    """Raise a ``FoveateError`` if one step is predicted to need more memory than there is.

    The prediction is of tensors alone, so what passes may still fail; but Linux kills what asks a CPU for too much
    without a word, and that is worth avoiding.
    """
    load = Load(
        context=settings.context,
        vocab_size=vocabulary,
        batch=settings.batch // settings.accumulate,
        dtype="bfloat16" if settings.dtype == "bf16" else "float32",
    )
    cost = predict(spec_of(settings), load)
    needed = cost.training_bytes
    if settings.gradient_checkpointing:
        needed -= sum(level.part.backward_bytes for level in cost.levels)
    free = free_memory(device)
    if needed > free:
        raise FoveateError(
            f"a step would take about {needed / 2**30:,.1f} GiB of memory, of which {free / 2**30:,.1f} GiB are free; "
            f"choose a smaller --batch than {settings.batch}, a larger --accumulate than {settings.accumulate}, "
            f"a shorter --context, or a smaller model"
        )


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min(psutil.virtual_memory().available, _left_to_container())


def _left_to_container() -> float:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return float("inf")
    return float("inf") if limit == "max" else int(limit) - int(used)
