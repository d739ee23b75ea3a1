"""What a device makes of a model's FLOPs and bytes."""

from __future__ import annotations

import json

import pytest

from foveate.cli import main
from foveate.cost import Load, predict
from foveate.roofline import Device, bytes_read, estimate
from foveate.spec import HierarchySpec

SMALL = Device(name="small", flops=1e9, bandwidth=1e9, memory=1e7)


def cost(walk: str, **load):
    return predict(HierarchySpec.parse(walk, width=64, heads=2), Load(**{"context": 256, "vocab_size": 300, **load}))


def test_a_plain_model_reads_all_it_has_for_a_token_and_coarse_layers_now_and_then() -> None:
    plain = cost("4@1", batch=3)
    assert bytes_read(plain) == 4 * plain.total.params + plain.total.cache_bytes
    deep = cost("1@1 8@16 1@1")
    fine, coarse = (level.part for level in deep.levels)
    all_of = [4 * part.params + part.cache_bytes for part in (fine, deep.ends, coarse)]
    assert bytes_read(deep) == pytest.approx(all_of[0] + all_of[1] + all_of[2] / 16)


def test_speeds_are_rates_over_work() -> None:
    model = cost("2@1")
    found = estimate(model, SMALL, devices=4)
    assert found.train_tokens_per_s == pytest.approx(4 * 0.4e9 / model.total.train_flops_per_token)
    assert found.decode_tokens_per_s == pytest.approx(0.6e9 / bytes_read(model))  # one text: bound by what is read
    many = cost("2@1", batch=4096)
    bound = 0.4e9 / many.total.flops_per_token  # many texts: bound by FLOPs, or by their caches
    assert estimate(many, SMALL).decode_tokens_per_s == pytest.approx(min(bound, 0.6e9 * 4096 / bytes_read(many)))
    assert found.train_fits
    assert not estimate(cost("2@1", batch=999), SMALL).train_fits


def test_info_says_it_for_a_device(capsys) -> None:
    words = ["info", "--walk", "1@1 4@4 2@1", "--hidden", "512", "--dtype", "bf16", "--device", "h100"]
    assert main(words) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].startswith("On H100 SXM, about ")
    assert last[1].startswith("One decodes about ")
    assert main([*words, "--json", "--devices", "64"]) == 0
    many = json.loads(capsys.readouterr().out)["estimate"]
    assert (many["device"], many["devices"]) == ("H100 SXM", 64)


def test_a_number_of_devices_without_a_device_is_refused(capsys) -> None:
    assert main(["info", "--walk", "2@1", "--devices", "8"]) == 2
    assert "--device" in capsys.readouterr().err
