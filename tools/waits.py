"""How many arrays each kind of walk takes to the device in a call, and how often it reads back.

    PYTHONPATH=tests python tools/waits.py

The device is PyTorch's meta device, where nothing can be read: a call that reads is shown as ``reads``. Documents and
counts are on the CPU, as a loader has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from contracts.walks import WALKS
from foveate.model.decoder import Decoder

DEVICE = torch.device("meta")
ROWS, COLUMNS = 3, 40
DOCUMENTS = torch.tensor([[0] * 17 + [1] * 3 + [2] * 20, [0] * 40, [0] * 9 + [1] * 31])
RAGGED = np.array([40, 7, 21])


class Uploads(TorchDispatchMode):
    """Counts copies from the CPU to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            self.count += torch.device(kwargs.get("device") or "cpu").type == DEVICE.type
        return function(*args, **kwargs)


def uploads(call: Callable[[], Any]) -> str:
    try:
        with Uploads() as counted:
            call()
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error):
            raise
        return "reads"
    return str(counted.count)


def cases(decoder: Decoder, x_BTD: Tensor) -> dict[str, str]:
    found = {}
    decoder(x_BTD)  # makes tables, once
    decoder(x_BTD, documents=DOCUMENTS)
    found["even"] = uploads(lambda: decoder(x_BTD))
    found["packed"] = uploads(lambda: decoder(x_BTD, documents=DOCUMENTS))
    with torch.no_grad():
        cache = decoder.make_cache(ROWS)
        decoder(x_BTD, cache)
        found["token"] = uploads(lambda: decoder(x_BTD[:, :1], cache))
        ragged = decoder.make_cache(ROWS)
        found["ragged"] = uploads(lambda: decoder(x_BTD, ragged, RAGGED))
        most = max((uploads(lambda: decoder(x_BTD[:, :1], ragged)) for _ in range(16)), key=lambda n: (len(n), n))
        found["its tokens"] = most
    return found


def main() -> None:
    print("arrays taken to the device in a call; of ragged tokens the most of 16")
    for index, (name, spec) in enumerate(WALKS.items()):
        decoder = Decoder(spec).to(DEVICE)
        found = cases(decoder, torch.empty(ROWS, COLUMNS, spec.levels[0].width, device=DEVICE))
        if not index:
            print(f"{'walk':24}" + "".join(f"{case:>12}" for case in found))
        print(f"{name:24}" + "".join(f"{count:>12}" for count in found.values()), flush=True)


if __name__ == "__main__":
    main()
