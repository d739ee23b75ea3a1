"""The most memory a process takes to train a model, measured in a process of its own.

    echo REQUEST | python -m foveate.bench.resident

REQUEST is what ``peak_bytes`` writes. What the process had before the model was built is taken off.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveate.devices import resident_bytes
from foveate.errors import FoveateError


def peak_bytes(request: Mapping[str, Any]) -> int | None:
    """The peak of the resident set, on a GPU of what was allocated there; None where the system does not tell.

    ``request`` has the arguments of ``make_contender`` (``shape``, ``peer``, ``vocab_size``, ``positions``,
    ``peer_path``, ``device``), and ``batch``, ``context``, ``bf16`` and ``threads``.

    Raises:
        FoveateError: the process came to no result.
    """
    command = [sys.executable, "-m", "foveate.bench.resident"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    if done.returncode < 0:
        raise FoveateError(f"measuring the peak was ended by signal {-done.returncode}: too little memory?")
    if done.returncode:
        raise FoveateError(f"measuring the peak failed: {(done.stderr.strip().splitlines() or ['no word of why'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(request: dict[str, Any]) -> int | None:
    import torch

    from foveate.bench.memory import Step
    from foveate.bench.peers import make_contender

    batch, context, bf16, threads = (request.pop(name) for name in ("batch", "context", "bf16", "threads"))
    torch.set_num_threads(threads)
    path = request.pop("peer_path")
    device = torch.device(request["device"])
    before = resident_bytes()
    given = make_contender(**request, peer_path=None if path is None else Path(path))
    step = Step(given.model.train(), batch, context, bf16)
    for _ in range(2):  # the second has gradients and moments beside it
        step.forward().backward()
        step.update()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    after = resident_bytes()
    return None if before is None or after is None or device.type != "cpu" else after[1] - before[0]


if __name__ == "__main__":
    print(json.dumps(_measure(json.load(sys.stdin))))
