"""Train many small models at once on one GPU, for as many tokens as a CPU has no time for, and score them alike.

    python experiments/long_data.py --data FOLDER --out runs/pack
    python experiments/long.py experiments/long_screen.yaml --pack runs/pack --out runs/long_screen --workers 12
    python experiments/long.py experiments/long_screen.yaml --pack runs/pack --out runs/long_screen --table
    python experiments/long.py experiments/long_40M.yaml --pack runs/pack --smoke

A small model keeps a GPU waiting for the next kernel: here a whole step is recorded once as a CUDA graph and replayed,
and several processes share the device. Model, schedule, optimizer, order of the blocks and windows of evaluation are
those of ``foveate train`` and ``foveate eval``; checkpoints there are none, an interrupted model begins anew. Without a
GPU the same steps run as they are.

A plan is one of run.py, with these settings more (see long_models.py for what they are):

--muon --qk-norm --value-residual --overlap --expand-gate --taps N --coarse-theta X --branch-scale X
--rate-of MODEL   learn at the best rate that --rates, the folder of a sweep, has for this model; else at ``lr``
--save            keep the weights, in bf16
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from long_data import IGNORED, bits_per_byte, held_out, score, unpack
from long_models import change, make_optimizers
from run import cases, commit, read, table
from torch import Tensor, nn

from foveate.cost import Load, predict
from foveate.data.tokenizer import load_tokenizer
from foveate.train.build import build_model
from foveate.train.order import ShuffledEpochs
from foveate.train.schedule import learning_rate
from foveate.train.settings import TrainSettings
from foveate.values import count

MARKS = [int(m * 1e6) for m in (0.25, 0.5, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64)]
WARM = 3  # steps before a step is recorded
AT_ONCE = 20  # steps sent to the device before it is waited for
SCORED_EACH = 24_576  # tokens of every held-out document: 48 windows of 512, 3 of 8,192


def options() -> argparse.ArgumentParser:
    """The settings that ``foveate train`` has not."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("muon", "qk-norm", "value-residual", "overlap", "expand-gate", "save"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--taps", type=int, default=0)
    parser.add_argument("--coarse-theta", type=float, default=0.0)
    parser.add_argument("--branch-scale", type=float, default=1.0)
    parser.add_argument("--rate-of")
    return parser


class Case:
    """One model of a plan."""

    def __init__(self, plan: dict[str, Any], group: str, model: str, seed: int, rates: dict[str, float]) -> None:
        given = {**plan["train"], **plan["groups"][group], **plan["models"][model], "seed": seed}
        given = {name.replace("-", "_"): value for name, value in given.items()}
        given.pop("program", None)
        self.variant = options().parse_args([])
        for name in vars(self.variant):
            setattr(self.variant, name, given.pop(name, getattr(self.variant, name)))
        if self.variant.rate_of in rates:
            given["lr"] = rates[self.variant.rate_of]
        given["tokens"] = count(str(given["tokens"]))
        self.settings = TrainSettings(**given)
        self.key = (group, model, seed)
        self.name = f"{group}-{model}-{seed}".replace(" ", "_")
        self.beside = 0  # models that share the device

    def build(self, pack: Path) -> Any:
        model = build_model(self.settings, load_tokenizer(pack / "tokenizer"))
        change(model, self.variant)
        return model.train()


@contextlib.contextmanager
def uploads_kept(device: torch.device, kept: dict[Any, Tensor]) -> Iterator[None]:
    """What numpy has computed is copied to the device once: a recorded step may copy nothing from the host."""
    from_numpy = torch.from_numpy

    def upload(array: np.ndarray) -> Tensor:
        key = (array.shape, array.dtype.str, array.tobytes())
        if key not in kept:
            kept[key] = from_numpy(array).to(device)
        return kept[key]

    torch.from_numpy = upload
    try:
        yield
    finally:
        torch.from_numpy = from_numpy


class Training:
    """A model's training as one function of no arguments, ``advance``, which reads nothing back from the device."""

    def __init__(self, case: Case, model: nn.Module, tokens: np.ndarray, device: torch.device) -> None:
        settings = case.settings
        self.model, self.device, self.steps = model.to(device), device, settings.steps
        self.context, self.bf16 = settings.context, settings.dtype != "fp32"
        self.tokens = torch.from_numpy(tokens.astype(np.int16)).to(device)  # ids are below 32,768
        blocks = -(-(len(tokens) - 1) // (self.context - 1))
        order = ShuffledEpochs(size=blocks, draws=self.steps * settings.batch, seed=settings.seed)
        wanted = torch.tensor(list(order)).view(self.steps, settings.batch) * (self.context - 1)
        starts = wanted.clamp(max=len(tokens) - self.context)
        self.starts_NB = starts.to(device)
        self.known_NB = torch.where(starts < wanted, wanted - starts + 1, 0).to(device)  # predicted by the block before
        rates = [learning_rate(step, settings) for step in range(1, self.steps + 1)]
        self.rates_N = torch.tensor(rates, device=device)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.losses_N = torch.full((self.steps,), float("nan"), device=device)
        self.lr = torch.zeros((), device=device)
        self.optimizers = make_optimizers(model, self.lr, settings.weight_decay, muon=case.variant.muon)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.kept: dict[Any, Tensor] = {}  # a recorded step reads them where they lie
        self.done = 0

    def advance(self) -> None:
        column_T = torch.arange(self.context, device=self.device)
        starts_B1, known_B1 = (of.index_select(0, self.step)[0, :, None] for of in (self.starts_NB, self.known_NB))
        ids_BT = self.tokens[starts_B1 + column_T].long()
        labels_BT = ids_BT.masked_fill(column_T < known_B1, IGNORED)
        for parameter in self.model.parameters():
            parameter.grad = None
        # a cache of casts would outlive the recording of a step
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            loss = self.model(input_ids=ids_BT, labels=labels_BT, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.lr.copy_(self.rates_N.index_select(0, self.step)[0])
        for optimizer in self.optimizers:
            optimizer.step()
        self.losses_N.index_copy_(0, self.step, loss.detach().float()[None])
        self.step += 1

    def record(self) -> None:
        """A few steps as they are, on a stream of their own, then one recorded, which does nothing yet."""
        if self.device.type != "cuda":
            return
        with uploads_kept(self.device, self.kept):
            self._record()

    def _record(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(min(WARM, self.steps)):
                self.advance()
                self.done += 1
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.advance()
        self.graph = graph

    def go_to(self, step: int, deadline: float = float("inf")) -> None:
        """Train up to ``step``, or until ``time.time()`` passes ``deadline``."""
        while self.done < min(step, self.steps) and time.time() < deadline:
            for _ in range(min(AT_ONCE, min(step, self.steps) - self.done)):
                self.advance() if self.graph is None else self.graph.replay()
                self.done += 1
            if self.device.type == "cuda":
                torch.cuda.synchronize()


def train(case: Case, pack: Path, tokens: np.ndarray, out: Path, device: torch.device, deadline: float) -> None:
    """Train and score one model; what is found goes to OUT/cases/NAME.json, its losses by token to NAME.npy."""
    settings = case.settings
    began = time.time()
    windows = held_out(pack, settings.context, SCORED_EACH)
    training = Training(case, case.build(pack), tokens, device)
    how = "as it is"
    if device.type == "cuda":
        try:
            training.record()
            how = "graph"
        except Exception as error:  # of whatever kind: a step that cannot be recorded is taken as it is
            print(f"{case.name}: not recorded ({type(error).__name__}: {error})", flush=True)
            training = Training(case, case.build(pack), tokens, device)
    per_step = settings.tokens_per_step
    marks = [mark // per_step for mark in MARKS if mark // per_step < training.steps]
    curve, spent = [], 0.0
    for step in [*marks, training.steps]:
        started = time.time()
        training.go_to(step, deadline)
        spent += time.time() - started
        if training.done < step:
            break
        if step < training.steps:
            bpb = bits_per_byte(score(training.model, windows, device, bf16=training.bf16), windows)
            curve.append({"tokens": step * per_step, "bpb": bpb, "seconds": round(spent, 2)})
    nll_NT = score(training.model, windows, device, bf16=False)
    bpb = bits_per_byte(nll_NT, windows)
    curve.append({"tokens": training.done * per_step, "bpb": bpb, "seconds": round(spent, 2)})
    group, name, seed = case.key
    spec = settings.spec
    cost = predict(spec, Load(context=settings.context, vocab_size=int(training.model.config.vocab_size))).total
    record = {
        "group": group, "model": name, "walk": str(spec), "seed": seed, "bpb": bpb,
        "tokens": training.done * per_step, "finished": training.done == training.steps, "lr": settings.lr,
        "optimizer": "muon" if case.variant.muon else "adamw", "beside": case.beside, "commit": commit(),
        "curve": curve, "parameters": sum(p.numel() for p in training.model.parameters()),
        "train_flops_per_token": cost.train_flops_per_token, "context": settings.context,
        "scored": int((windows.targets >= 0).sum()), "bytes": windows.text_bytes,
        "seconds": round(spent, 2), "set_up": round(time.time() - began - spent, 2), "steps": how,
        "losses": [round(x, 4) for x in training.losses_N[: training.done][:: max(1, training.done // 200)].tolist()],
    }  # fmt: skip
    if device.type == "cuda":
        record |= {"machine": torch.cuda.get_device_name(), "peak_mb": torch.cuda.max_memory_allocated() >> 20}
        torch.cuda.reset_peak_memory_stats()
    folder = out / "cases"
    np.save(folder / f"{case.name}.npy", nll_NT.astype(np.float16))
    if case.variant.save:
        save(case, training.model, pack, out / "models" / case.name)
    (folder / f"{case.name}.tmp").write_text(json.dumps(record))
    (folder / f"{case.name}.tmp").rename(folder / f"{case.name}.json")
    print(f"{case.name}: {bpb:.4f} after {record['tokens']:,} tokens, {spent:.1f} s, {how}", flush=True)


def save(case: Case, model: Any, pack: Path, folder: Path) -> None:
    """The model in bf16, as ``foveate.load`` reads it (without what long_models.py changed)."""
    model.bfloat16().save_pretrained(folder)
    load_tokenizer(pack / "tokenizer").save_pretrained(folder)


def work(todo: list[Case], turn: Any, pack: Path, out: Path, device: torch.device, until: tuple[float, float]) -> None:
    """Take cases one after the other until none is left; ``until``: when to end, and when to begin none any more."""
    deadline, last = until
    tokens = training_tokens(pack)
    slowest = 0.0  # seconds for a token of training
    while time.time() < min(last, deadline):
        with turn.get_lock():
            place, turn.value = turn.value, turn.value + 1
        if place >= len(todo):
            return
        case, began = todo[place], time.time()
        if began + slowest * case.settings.tokens > deadline:
            print(f"{case.name}: not begun, there is no time left to finish it", flush=True)
            continue
        try:
            train(case, pack, tokens, out, device, deadline)
        except Exception as error:
            (out / "cases" / f"{case.name}.error").write_text(traceback.format_exc())
            print(f"{case.name}: failed: {type(error).__name__}: {error}", flush=True)
            if device.type == "cuda":
                os._exit(1)  # the device may be in no state to go on
        slowest = max(slowest, (time.time() - began) / case.settings.tokens)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def training_tokens(pack: Path) -> np.ndarray:
    """The ids of the pack, uint16, memory-mapped: unpacked by the first who asks."""
    unpacked = pack / "train.npy"
    if not unpacked.exists():
        np.save(pack / "unfinished.npy", unpack(pack / "train.xz"))
        (pack / "unfinished.npy").rename(unpacked)
    return np.load(unpacked, mmap_mode="r")


def run_all(todo: list[Case], args: argparse.Namespace) -> None:
    training_tokens(args.pack)
    deadline, last = time.time() + args.seconds, time.time() + args.start_within
    # forked, a process has everything imported already; nothing here may have used the GPU before
    context: Any = multiprocessing.get_context(args.start)
    turn = context.Value("i", 0)
    given = (todo, turn, args.pack, args.out, torch.device(args.device), (deadline, last))
    start: Callable[[], Any] = partial(context.Process, target=work, args=given)
    alive = [start() for _ in range(min(args.workers, len(todo)))]
    for case in todo:
        case.beside = len(alive) - 1
    for process in alive:
        process.start()
    while alive:
        time.sleep(0.2)
        for process in [process for process in alive if not process.is_alive()]:
            alive.remove(process)
            if process.exitcode and turn.value < len(todo):
                alive.append(start())
                alive[-1].start()


def smoke(todo: list[Case], pack: Path, out: Path, device: torch.device, steps: int) -> None:
    """Each model alone: whether its step can be recorded and then does what it did before, time and memory."""
    tokens = training_tokens(pack)
    ledger = out / "smoke.jsonl"
    for case in {(*case.key[:2], case.settings.batch): case for case in reversed(todo)}.values():
        found: dict[str, Any] = {"group": case.key[0], "model": case.key[1], "walk": str(case.settings.spec)}
        try:
            plain = Training(case, case.build(pack), tokens, device)
            plain.go_to(WARM + 5)
            torch.cuda.synchronize() if device.type == "cuda" else None
            began = time.time()
            plain.go_to(WARM + 10)
            found["as_it_is_ms"] = round((time.time() - began) / 5 * 1e3, 2)
            expected = plain.losses_N[: WARM + 10].tolist()
            found["first_losses"] = [round(x, 4) for x in expected]
            windows = held_out(pack, case.settings.context, case.settings.context)
            found["bpb"] = bits_per_byte(score(plain.model, windows, device, bf16=plain.bf16), windows)
            del plain
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                recorded = Training(case, case.build(pack), tokens, device)
                recorded.record()
                recorded.go_to(WARM + 10)
                losses = recorded.losses_N[: WARM + 10].tolist()
                found["largest_difference"] = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
                began = time.time()
                recorded.go_to(WARM + 10 + steps)
                found["graph_ms"] = round((time.time() - began) / steps * 1e3, 2)
                found["peak_mb"] = torch.cuda.max_memory_allocated() >> 20
                del recorded
                torch.cuda.empty_cache()
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"[:300]
            traceback.print_exc()
        print(json.dumps(found), flush=True)
        with ledger.open("a") as file:
            file.write(json.dumps(found) + "\n")


def best_rates(folder: Path | None) -> dict[str, float]:
    """By model the rate with the lowest mean bits per byte of a sweep whose models are called MODEL and MODEL@RATE."""
    found: dict[str, dict[float, list[float]]] = {}
    for record in read(folder / "results.jsonl") if folder is not None else []:
        by_rate = found.setdefault(record["model"].split("@")[0], {})
        by_rate.setdefault(record["lr"], []).append(record["bpb"])
    return {model: min(by_rate, key=lambda lr: float(np.mean(by_rate[lr]))) for model, by_rate in found.items()}


def gather(out: Path) -> list[dict[str, Any]]:
    """Write what the cases found to OUT/results.jsonl."""
    records = [json.loads(path.read_text()) for path in sorted((out / "cases").glob("*.json"))]
    (out / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


def all_cases(plan: dict[str, Any], only: list[str], rates: dict[str, float]) -> Iterator[Case]:
    for group, model, seed in cases(plan, only):
        yield Case(plan, group, model, seed, rates)


def main() -> None:
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # a look for a GPU would spoil it for forked processes
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--pack", type=Path, required=True, help="folder that long_data.py made")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[], help="groups, models or seeds to run; default: all")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the device")
    parser.add_argument("--start", choices=("fork", "spawn"), default="fork", help="how they are started")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop training, score and save after these")
    parser.add_argument("--start-within", type=float, default=float("inf"), help="begin no model after these seconds")
    parser.add_argument("--rates", type=Path, help="folder of a sweep, for models that say rate-of")
    parser.add_argument("--smoke", type=int, nargs="?", const=40, help="only try so many steps of each model")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    args = parser.parse_args()
    plan = yaml.safe_load(args.plan.read_text())
    (args.out / "cases").mkdir(parents=True, exist_ok=True)
    rates = best_rates(args.rates)
    todo = list(all_cases(plan, args.only, rates))
    if args.smoke:
        return smoke(todo, args.pack, args.out, torch.device(args.device), args.smoke)
    if not args.table:
        if rates:
            print("rates:", json.dumps(rates), flush=True)
        todo = [case for case in todo if not (args.out / "cases" / f"{case.name}.json").exists()]
        run_all(todo, args)
    order = {(case.key[0], case.key[1]): place for place, case in enumerate(all_cases(plan, [], rates))}
    records = gather(args.out)
    print(table(sorted(records, key=lambda r: order.get((r["group"], r["model"]), len(order)))))
    return None


if __name__ == "__main__":
    sys.exit(main())
