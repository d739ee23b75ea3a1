"""DistributedDataParallel, which fails where parameters take no part, trains every family at every length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from foveate.hf import modeling_foveate
from foveate.hf.private import checkpointing_argument
from foveate.hf.whole_graph import with_every_parameter
from hf.models import FAMILIES, make_ids, make_model


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone: DistributedDataParallel looks for unused parameters in it, too."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def gradients(model: Any, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    found = []
    for length in lengths:
        model.zero_grad()
        ids = make_ids(2, length)
        model(input_ids=ids, labels=ids).loss.backward()
        named = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
        found.append({name: None if grad is None else grad.clone() for name, grad in named.items()})
    return found


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_shorter_than_a_stride_train(family: str, checkpointing: bool) -> None:
    lengths = (3, 40, 2)
    expected = gradients(make_model(family).train(), lengths)
    model = make_model(family).train()
    if checkpointing:
        getattr(model, f"{checkpointing_argument()}_enable")()
    wrapped = DistributedDataParallel(model)
    for got, wanted in zip(gradients(wrapped, lengths), expected, strict=True):
        for name, grad in wanted.items():
            torch.testing.assert_close(got[name], torch.zeros_like(got[name]) if grad is None else grad)


@pytest.mark.usefixtures("group")
def test_without_it_a_short_text_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_foveate, "with_every_parameter", lambda x, module: x)
    wrapped = DistributedDataParallel(make_model("top_down").train())
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        gradients(wrapped, (3, 3))


@pytest.mark.usefixtures("group")
def test_nobody_gets_a_gradient_of_zeros_by_it() -> None:
    model = make_model("top_down").train()
    [got] = gradients(model, (3,))
    assert any(grad is None for grad in got.values()), (
        "what took no part has a gradient, which an optimizer would decay by"
    )


def test_alone_it_costs_nothing() -> None:
    model = make_model("top_down").train()
    x = model(make_ids(1, 3)).logits
    assert with_every_parameter(x, model) is x
