"""Devices and precisions by their names, which one to take, and how much memory is left there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate import limits
from foveate.errors import FoveateError

if TYPE_CHECKING:
    import torch

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; ``auto`` is a GPU if there is one."""
    import torch

    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise FoveateError(f"--device {device}: there is no such device; write auto, cpu, cuda or mps") from None
    missing = (found.type == "cuda" and not torch.cuda.is_available()) or (
        found.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise FoveateError(f"--device {device}: this machine, or this build of torch, has none; write cpu or auto")
    return found


def pick_dtype(dtype: str, device: torch.device) -> str:
    """``dtype``, or for ``auto``: ``bf16`` where the hardware multiplies in it, which is where it pays, else ``fp32``.

    These are GPUs that have bf16 themselves, and CPUs with AMX or AVX-512 bf16 instructions: there a training step was
    1.8 to 2.7 times as fast, the more so the wider the model (64 to 512).
    """
    import torch

    if dtype != "auto":
        return dtype
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        return "bf16" if known.get("amx_bf16") or known.get("avx512_bf16") else "fp32"
    return "fp32"


def read_dtype(dtype: str | torch.dtype | None) -> Any:
    """``fp32``, ``bfloat16``, ``torch.float16``, ... as a torch dtype; ``auto`` stays, None is fp32."""
    import torch

    if dtype is None:
        return torch.float32
    if isinstance(dtype, str) and dtype != "auto":
        found = getattr(torch, DTYPES.get(dtype, dtype), None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise FoveateError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}, auto")
        return found
    return dtype


def resident_bytes() -> tuple[int, int] | None:
    """Bytes that this process has resident, and the most it ever had; None but on Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    kilobytes = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return int(kilobytes["VmRSS"]) * 1024, int(kilobytes["VmHWM"]) * 1024


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that tensors took on a GPU, or that this process had resident; None where nobody tells."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = resident_bytes() if device.type == "cpu" else None
    return resident and resident[1]


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device, as far as the system tells."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return limits.free_memory()
