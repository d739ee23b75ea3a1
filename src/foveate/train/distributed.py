"""One run on several processes: who is who, and what they decide together.

``torchrun``, ``accelerate launch`` or ``srun`` start the processes and tell each its place through the environment.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from foveate.errors import FoveateError

T = TypeVar("T")

SAID = "foveate/said"  # in the store of the processes: how many have asked whether they may speak
SECONDS_TO_END = 2.0

# how long processes wait for one of them, such as the one that tokenises; one that has ended is noticed at once
PATIENCE = timedelta(days=7)
LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "closed the connection")


class World:
    """The processes of a run, of which rank 0 writes and speaks. By itself: one process alone.

    Every method but ``is_main`` and ``device`` must be called by all processes, in the same order.
    """

    def __init__(self, *, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        # decisions are made on the CPU: one that went through a GPU would make it wait at every step
        self.group = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def device(self, found: torch.device) -> torch.device:
        """The device of this process, where ``found`` is what a process alone would use."""
        if self.size == 1 or found.type != "cuda":
            return found
        if self.local_rank >= torch.cuda.device_count():
            raise FoveateError(
                f"this machine has {torch.cuda.device_count()} GPUs, too few for its process {self.local_rank}; "
                f"start fewer processes, or add --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def any(self, flag: bool) -> bool:
        """Whether it is true of any process."""
        return bool(self.sum(float(flag)))

    def sum(self, value: float) -> float:
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        return total.item()

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes, on their devices: no GPU waits for it."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def on_main(self, work: Callable[[], T]) -> T:
        """What ``work`` gives on rank 0, where alone it is done; if it fails there, every process ends."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, False]
        error = None
        if self.is_main:
            try:
                outcome = [work(), True]
            except Exception as raised:
                error = raised
        dist.broadcast_object_list(outcome, src=0, group=self.group)
        if error is not None:
            raise error
        if not outcome[1]:
            raise SystemExit(2)  # rank 0 says why
        return outcome[0]

    def first_on_node(self, work: Callable[[], T]) -> T:
        """What ``work`` gives on each process; the others of a machine begin when its first one is done."""
        if self.size == 1:
            return work()
        if self.local_rank == 0:
            result = work()
        dist.barrier(group=self.group)
        if self.local_rank != 0:
            result = work()
        return result

    def ask_all_same(self, value: str, what: str) -> None:
        """Raise a ``FoveateError`` unless ``value`` is the same on all processes."""
        values = self.gather(value)
        other = next((rank for rank, theirs in enumerate(values) if theirs != values[0]), None)
        if other is not None:
            raise FoveateError(f"{what} of process {other} is not that of process 0; give all machines the same")


@contextlib.contextmanager
def joined(goes_on_with: str) -> Iterator[World]:
    """The processes that were started together, or this one alone; whatever ends one of them is said once.

    Args:
        goes_on_with: the command that goes on with the run, for when a process is lost.

    Raises:
        FoveateError: the processes do not find each other; one of them has ended.
        SystemExit: something ended the run that another process has said or is going to say.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or dist.is_initialized():
        yield World() if size == 1 else World(rank=dist.get_rank(), size=dist.get_world_size(), local_rank=_local())
        return
    rank = int(os.environ["RANK"])
    _check_launcher()
    try:
        store, rank, size = next(dist.rendezvous("env://", rank, size))
        # both from the start: tensors on GPUs go by the one, those on CPUs by the other
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        world = World(rank=rank, size=size, local_rank=_local())
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        reason = str(error).partition("\n")[0]
        raise FoveateError(f"process {rank} of {size} has not found the others at {place}: {reason}") from None
    try:
        yield world
    except Exception as error:
        speaks = _may_speak(store, rank)
        _let_others_end(world, store)
        if not speaks:
            raise SystemExit(2) from None
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST_PEER):
            raise FoveateError(f"a process of the run has ended; go on with {goes_on_with}") from None
        raise
    dist.destroy_process_group()


def _local() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _may_speak(store: dist.Store, rank: int) -> bool:
    """True for the first process that asks: it has the cause, the others have only lost it."""
    try:
        return store.add(SAID, 1) == 1
    except RuntimeError:  # the process that kept the store has ended
        return rank == 1


def _let_others_end(world: World, store: dist.Store) -> None:
    """Whoever waits for this process is told that it waits in vain, and may still ask the store who speaks."""
    dist.destroy_process_group(world.group)
    keeps_store = world.is_main and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    deadline = time.monotonic() + SECONDS_TO_END
    with contextlib.suppress(RuntimeError):
        while keeps_store and store.add(SAID, 0) < world.size and time.monotonic() < deadline:
            time.sleep(0.02)


def _check_launcher() -> None:
    """What is computed follows from the command, not from how accelerate was configured."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        raise FoveateError("foveate trains with DDP or FSDP2, not with DeepSpeed; launch it without, with --parallel")
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        del os.environ[name]
