"""Devices and precisions, also of machines that this one is not."""

from __future__ import annotations

import pytest
import torch

from foveate.devices import free_memory, pick_dtype, read_dtype
from foveate.errors import FoveateError

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(
    ("capabilities", "dtype"), [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32")]
)
def test_a_cpu_takes_bf16_if_it_multiplies_in_it(capabilities, dtype, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert pick_dtype("auto", CPU) == dtype
    assert pick_dtype("fp16", CPU) == "fp16"
    assert pick_dtype("auto", MPS) == "fp32"


@pytest.mark.parametrize(("native", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_takes_bf16_if_it_need_not_emulate_it(native, dtype, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert pick_dtype("auto", CUDA) == dtype


def test_what_is_free_on_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 8))
    assert free_memory(CUDA) == 3
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 8)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3)
    assert free_memory(MPS) == 5


def test_names_of_dtypes() -> None:
    assert [read_dtype(name) for name in ("bf16", "float16", torch.float64, None)] == [
        *(torch.bfloat16, torch.float16, torch.float64, torch.float32)
    ]
    assert read_dtype("auto") == "auto"
    for wrong in ("int8", "Tensor", "bf61"):
        with pytest.raises(FoveateError, match=f"dtype '{wrong}' is unknown; choose one of fp32, bf16, fp16, auto"):
            read_dtype(wrong)
