"""torch.export with a dynamic length, strict and not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from hf.models import make_ids, make_model


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False, return_dict=True).logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("family", "lengths"), [("plain", (96, 97, 7)), ("hourglass", (96, 64, 200))])
def test_an_exported_model_takes_other_lengths(family: str, lengths: tuple[int, ...], strict: bool) -> None:
    model = Logits(make_model(family, rope_theta=9_000.0 + strict))  # rotations that nobody has made before
    with torch.no_grad():
        exported = export(model, (make_ids(2, 96),), dynamic_shapes=({1: Dim.AUTO},), strict=strict).module()
        for length in lengths:
            ids = make_ids(2, length)
            # the model itself, too: what an exporter traced with once stood in its tables
            torch.testing.assert_close(exported(ids), model(ids), rtol=0, atol=1e-10)
