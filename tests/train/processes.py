"""Several processes of one run, as torchrun starts them but sooner: from a server that has imported everything."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["foveate.train.run", "train.processes"])


class Processes:
    """``size`` processes that each do ``work(*arguments)``; their output goes to files in ``folder``."""

    def __init__(self, size: int, folder: Path, work: Callable[..., int], *arguments: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.outputs = [folder / f"rank-{rank}.txt" for rank in range(size)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        cache = os.environ["FOVEATE_CACHE"]
        self.members = [
            SERVER.Process(target=_member, args=(rank, size, port, cache, output, work, arguments))
            for rank, output in enumerate(self.outputs)
        ]
        for member in self.members:
            member.start()

    def wait(self) -> list[int | None]:
        """Exit codes by rank; negative the signal that ended one, None for one that does not end."""
        for member in self.members:
            member.join(120)
        return [member.exitcode for member in self.members]

    def said(self) -> list[list[str]]:
        """Lines of standard output and error, by rank."""
        return [output.read_text(encoding="utf-8").splitlines() for output in self.outputs]


def _member(
    rank: int, size: int, port: int, cache: str, output: Path, work: Callable[..., int], arguments: Sequence[Any]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "FOVEATE_CACHE": cache,
    }
    torch.set_num_threads(1)
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(work(*arguments))


def command(words: Sequence[str]) -> int:
    """``foveate`` with these words."""
    from foveate.cli import main

    return main(list(words))


def shard_a_model(walk: str, context: int, result: Path) -> int:
    """Shard a model; write what this process keeps of it, and how far it is from the model of one process."""
    from torch.distributed.tensor import DTensor

    from foveate import FoveateConfig, FoveateForCausalLM
    from foveate.train import spread
    from foveate.train.distributed import joined

    def make() -> FoveateForCausalLM:
        torch.manual_seed(0)
        return FoveateForCausalLM(FoveateConfig(walk=walk, vocab_size=64, hidden_size=32, num_attention_heads=2))

    with joined("") as world:
        whole, model = make(), spread.shard(make(), world, torch.device("cpu"))
        ids_BT = torch.randint(64, (2, context), generator=torch.Generator().manual_seed(1))
        loss = whole(input_ids=ids_BT, labels=ids_BT).loss
        mine = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        mine.backward()
        pairs = list(zip(whole.named_parameters(), model.named_parameters(), strict=True))
        reached = [(p.grad, q.grad.full_tensor()) for (_, p), (_, q) in pairs if p.grad is not None]
        kept = [spread.like(q, p.detach()).to_local().numel() for (_, p), (_, q) in pairs]
        found = {
            "sharded": sum(isinstance(q, DTensor) for _, (_, q) in pairs),
            "parameters": len(pairs),
            "unreached": sorted(name for (name, p), _ in pairs if p.grad is None),
            "unreached when sharded": sorted(name for _, (name, q) in pairs if q.grad is None),
            "local numbers": sum(q.to_local().numel() for _, (_, q) in pairs),
            "local numbers of a whole tensor": sum(kept),
            "numbers": sum(p.numel() for (_, p), _ in pairs),
            "loss": abs((mine - loss).item()),
            "gradient": max((a - b).abs().max().item() for a, b in reached),
        }
        if world.is_main:
            result.write_text(json.dumps(found))
    return 0
