"""A zoom that opens everything sees what full attention sees."""

from __future__ import annotations

import torch

from contracts.checks import make_decoder
from contracts.walks import small


def test_all_opened_is_full_attention() -> None:
    full = make_decoder(small("2@1"))
    zoom = make_decoder(small("2@1:zoom3,sinks=2,block=8,groups=4/2,keep=all/all,opened=64,thumbnails=0"))
    few = make_decoder(small("2@1:zoom3,sinks=2,block=8,groups=4/2,keep=all/all,opened=2,thumbnails=0"))
    zoom.load_state_dict(full.state_dict())
    few.load_state_dict(full.state_dict())
    x_BTD = torch.randn(2, 60, full.spec.levels[0].width, dtype=torch.float64)
    expected = full(x_BTD)
    torch.testing.assert_close(zoom(x_BTD), expected, rtol=0, atol=1e-12)
    assert (few(x_BTD) - expected).abs().max() > 1e-3
    cache = zoom.make_cache(2)
    with torch.no_grad():
        found = [zoom(part, cache) for part in x_BTD.split([30, 1, 1, 28], 1)]
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=0, atol=1e-12)
