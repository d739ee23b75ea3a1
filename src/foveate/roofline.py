"""How fast a device would be at most, and at a stated share of that: its rates over a model's FLOPs and bytes.

An estimate for matrices large enough to fill the device. Small models are slower, bound by the start of their kernels:
``docs/lasting.md`` has measured steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foveate.cost import Cost

SHARE_OF_FLOPS = 0.4  # in training: what steps measured on an H200 were fitted to
SHARE_OF_BANDWIDTH = 0.6  # when decoding: assumed


@dataclass(frozen=True, kw_only=True)
class Device:
    """What its maker says: dense bf16 FLOP/s, bytes/s and bytes of its memory."""

    name: str
    flops: float
    bandwidth: float
    memory: float


DEVICES = {
    "a100": Device(name="A100 SXM 80 GB", flops=312e12, bandwidth=2.039e12, memory=80e9),
    "h100": Device(name="H100 SXM", flops=989e12, bandwidth=3.35e12, memory=80e9),
    "h200": Device(name="H200 SXM", flops=989e12, bandwidth=4.8e12, memory=141e9),
}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A model on a device, one or several.

    Attributes:
        train_tokens_per_s: Of all devices, each with the whole model; nothing is counted for what they tell each other.
        train_fits: Weights, gradients, Adam and what is kept for the backward fit into the memory of one.
        read_bytes: Weights and cache that one step of decoding reads, for all texts, averaged over the clock.
        decode_tokens_per_s: Of all texts together, on one device.
        decode_fits: Weights and cache fit into the memory of one.
    """

    device: str
    devices: int
    train_tokens_per_s: float
    train_fits: bool
    read_bytes: float
    decode_tokens_per_s: float
    decode_fits: bool


def bytes_read(cost: Cost) -> float:
    """By one step of decoding: of every level that runs weights and caches, of a level of stride k one time in k."""
    ends = cost.ends.params * cost.load.element
    return ends + sum(
        (level.part.params * cost.load.element + level.part.cache_bytes) * level.runs_per_token for level in cost.levels
    )


def estimate(cost: Cost, device: Device, *, devices: int = 1) -> Estimate:
    """What ``cost`` takes of ``device``, whose rates are reached to the shares above."""
    read = bytes_read(cost)
    per_s = device.flops * SHARE_OF_FLOPS / cost.total.train_flops_per_token
    by_bytes = device.bandwidth * SHARE_OF_BANDWIDTH / read * cost.load.batch
    by_flops = device.flops * SHARE_OF_FLOPS / cost.total.flops_per_token
    return Estimate(
        device=device.name,
        devices=devices,
        train_tokens_per_s=devices * per_s,
        train_fits=cost.training_bytes <= device.memory,
        read_bytes=read,
        decode_tokens_per_s=min(by_bytes, by_flops),
        decode_fits=cost.weight_bytes + cost.total.cache_bytes <= device.memory,
    )


def as_sentences(found: Estimate, size: Any) -> str:
    """The estimate in words; ``size`` writes bytes."""
    on = found.device if found.devices == 1 else f"{found.devices} x {found.device}"
    too_large = "; it does not fit into the memory of one"
    return (
        f"On {on}, about {found.train_tokens_per_s:,.0f} tokens/s trained ({SHARE_OF_FLOPS:g} of its FLOP/s in bf16)"
        f"{'' if found.train_fits else too_large}.\n"
        f"One decodes about {found.decode_tokens_per_s:,.0f} tokens/s ({size(int(found.read_bytes))} read a step, at "
        f"{SHARE_OF_BANDWIDTH:g} of its memory's rate){'' if found.decode_fits else too_large}."
    )
