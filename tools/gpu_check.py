"""What a person with a GPU runs first: is it right there, is it compiled, and how fast is it? About five minutes.

    python tools/gpu_check.py                 on the GPU: prints the table, and writes it into docs/gpu.md
    python tools/gpu_check.py --toy           on any machine, with toy sizes: whether this script works; writes nothing

First walks of every kind are compared with themselves on the CPU in float32: whole, by a cache, and by compiled steps
at fixed addresses. Then models in bf16, and a Llama of as many layers, compiled alike: tokens per second of training
steps and of decoded tokens, the peak of memory, and the share of the time that reading weights and state takes at the
bandwidth of a large copy. Every measurement has a process of its own: they compile side by side, which is what takes
the time, and then have the device one after another. What fails, finds no memory, or no time, is left out by name.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch
import torch._dynamo
from torch import Tensor

from foveate import FoveateConfig, FoveateForCausalLM, compile_decoding
from foveate.bench.decode import time_decoding
from foveate.bench.peers import make_models
from foveate.bench.roofline import bytes_read, synchronize
from foveate.bench.train import time_training

PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"
BEGIN, END = "<!-- made by tools/gpu_check.py: begin -->", "<!-- made by tools/gpu_check.py: end -->"
TOKENS = 64  # decoded in a timing
PARITY = 2e-3  # of logits in float32 without TensorFloat, relative to the largest

WALKS = {
    "plain": "2@1",
    "hourglass": "1@1 2@4 1@1",
    "nested": "1@1 1@4 2@16 1@4 1@1",
    "top-down": "0@1 1@16 1@4 1@1",
    "bottom-up": "1@1 1@4 1@16 0@1",
    "windows": "1@1:window5 1@4 1@1:window5",
    "sinks": "1@1:sink5 1@4 1@1:sink3",
    "fovea": "2@1:fovea4,groups=4,scales=2/4",
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement: of one model at one size, in a process of its own."""

    kind: str  # "parity", "train" or "decode"
    walk: str  # or "llama"
    like: str = ""  # the walk whose shape a llama has
    size: str = ""
    hidden: int = 64
    heads: int = 4
    vocab: int = 97
    batch: int = 1
    context: int = 96
    device: str = "cuda"
    compiled: bool = True

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.kind, self.size, self.walk, f"{self.batch} x {self.context:,}")))


def jobs() -> list[list[Job]]:
    """Those that compile at the same time, in turn: what is kept on the device by all of them must fit."""
    deep, local = "2@1 4@4 10@16 4@4 2@1", "2@1:window512 4@4:window512 10@16 4@4:window512 2@1:window512"
    small: dict[str, Any] = {"size": "100M", "hidden": 768, "heads": 12, "vocab": 32_000}
    large: dict[str, Any] = {"size": "1B", "hidden": 2048, "heads": 16, "vocab": 32_000}
    parity = [Job(kind="parity", walk=walk) for walk in WALKS.values()]
    train = [
        Job(kind="train", walk=walk, like="12@1", batch=batch, context=context, **small)
        for batch, context in ((8, 2048), (1, 16_384))
        for walk in ("llama", "12@1", deep, local)
    ]
    decode = [
        Job(kind="decode", walk=walk, like="12@1", context=context, **small)
        for context in (2048, 32_768, 131_072)
        for walk in ("llama", "12@1", deep, local)
        if (walk, context) != ("12@1", 131_072)
    ]
    decode += [
        Job(kind="decode", walk=walk, like="18@1", context=context, **large)
        for context in (2048, 32_768)
        for walk in ("llama", "18@1", "3@1 4@4 15@16 4@4 3@1")
    ]
    return [parity + train, decode]


def toy_jobs() -> list[list[Job]]:
    shape: dict[str, Any] = {"size": "toy", "hidden": 32, "heads": 2, "vocab": 64, "device": "cpu", "compiled": False}
    parity = [Job(kind="parity", walk=walk, device="cpu") for walk in list(WALKS.values())[:2]]
    walks = ("llama", "2@1", "1@1 1@4 1@1:window8")
    return [
        parity + [Job(kind="train", walk=walk, like="2@1", context=32, **shape) for walk in walks],
        [Job(kind="decode", walk=walk, like="2@1", context=40, **shape) for walk in walks],
    ]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parity(walk: str, device: torch.device) -> dict[str, Any]:
    """The largest difference of logits to the CPU's, relative; and of compiled steps the graphs, the breaks and the
    graphs that could not be recorded as CUDA graphs."""
    torch.manual_seed(0)
    shape = {"vocab_size": 97, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = FoveateForCausalLM(FoveateConfig(walk=walk, **shape)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.1).add_("norm" in name)
    ids = torch.randint(97, (2, 96))
    with torch.inference_mode():
        expected = model(ids, use_cache=False).logits
        model, there = model.to(device), ids.to(device)
        whole = model(there, use_cache=False).logits
        growing = by_tokens(model, there, model.make_cache(2))
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        compile_decoding(model, **({"backend": "eager"} if device.type == "cpu" else {}))
        fixed = by_tokens(model, there, model.make_cache(2, max_length=96))
    largest = float(expected.abs().max())
    ways = {"whole": whole, "cache": growing, "compiled": fixed}
    record: dict[str, Any] = {way: float((got.cpu() - expected).abs().max()) / largest for way, got in ways.items()}
    counters = torch._dynamo.utils.counters
    record |= {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}
    record |= {"not_recorded": counters["inductor"]["cudagraph_skips"]}
    return {"kind": "parity", "walk": walk, **record}


def by_tokens(model: Any, ids: Tensor, cache: Any) -> Tensor:
    logits = [model(ids[:, :40], past_key_values=cache, use_cache=True).logits]
    # what a captured graph gives is overwritten by its next replay
    logits += [model(ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits.clone() for t in range(40, 96)]
    return torch.cat(logits, 1)


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes per second that a large copy reads and writes."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size / best


def work(job: Job, ready: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The records of ``job``, which calls ``ready`` before it takes the time."""
    device = torch.device(job.device)
    if job.kind == "parity":
        yield parity(job.walk, device)
        return
    on_gpu = device.type == "cuda"
    shape = {"walk": job.like, "hidden_size": job.hidden, "num_attention_heads": job.heads}
    dtype = torch.bfloat16 if on_gpu and job.kind == "decode" else torch.float32
    kinds: tuple[list[Any], list[str]] = (
        ([shape], ["llama"]) if job.walk == "llama" else ([shape | {"walk": job.walk}], [])
    )
    models = make_models(*kinds, vocab_size=job.vocab, device=device, dtype=dtype)
    models = {job.walk: models[job.walk]}

    def begin() -> None:
        if on_gpu:
            gc.collect()
            torch.cuda.empty_cache()
        ready()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()

    record = {"kind": job.kind, "size": job.size, "name": job.walk, "batch": job.batch, "context": job.context}
    timing: dict[str, Any] = {"batch": job.batch, "context": job.context, "compiled": job.compiled}
    if job.kind == "train":
        for trained in time_training(models, steps=7, bf16=on_gpu, ready=begin, note=say, **timing):
            record |= {"params": trained.params, "tokens_per_s": trained.train_tokens_per_s}
    else:
        spec = models[job.walk].spec
        read = bytes_read(spec, [job.context] * job.batch, TOKENS, job.vocab, str(dtype).removeprefix("torch."))
        for decoded in time_decoding(models, tokens=TOKENS, repeats=3, ready=begin, note=say, **timing):
            record |= {"tokens_per_s": decoded.tokens_per_s, "state_bytes": decoded.state_bytes, "read_bytes": read}
    yield record | {"peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0}


class Process:
    """A job in a process of its own, which says when it is ready to measure, and waits to be told."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # it outlives this method, as the process does
        command = [sys.executable, __file__, "--job", json.dumps(asdict(job))]
        pipe = subprocess.PIPE
        # so many compile beside it that each has to do with little
        few = {"TORCHINDUCTOR_COMPILE_THREADS": "2", "OMP_NUM_THREADS": "1"} | os.environ
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, text=True, env=few)

    def prepare(self) -> bool:
        """Wait until it is ready; False if it failed."""
        return self._out.readline().strip() == "ready"

    def measure(self) -> list[dict[str, Any]]:
        """Tell it to begin, and wait for its records; none if it failed, which is said."""
        try:
            out, _ = self._process.communicate("go\n")
        except BrokenPipeError:
            out = ""
        if self._process.returncode:
            say(f"{self.job.name}: left out: {self._reason()}")
            out = ""
        self._log.close()
        return [json.loads(line) for line in out.splitlines()]

    def stop(self, why: str) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        say(f"{self.job.name}: left out: {why}; it last said: {self._reason()}")
        self._log.close()

    def _reason(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return lines[-1] if lines else "nothing"

    @property
    def _out(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout


def run(wave: list[Job], compiled_by: float, until: float, at_once: int) -> Iterator[dict[str, Any]]:
    """Records of the jobs of ``wave``: all are compiled, ``at_once`` at a time, then one at a time has the device."""
    waiting, ready, pending = list(wave), list[Process](), dict[Future[bool], Process]()
    with ThreadPoolExecutor(at_once) as pool:
        while waiting or pending:
            while waiting and len(pending) < at_once:
                process = Process(waiting.pop(0))
                pending[pool.submit(process.prepare)] = process
            left = max(compiled_by - time.monotonic(), 0)
            done, _ = wait(pending, timeout=left, return_when=FIRST_COMPLETED)
            for future in done:
                process = pending.pop(future)
                if future.result():
                    ready.append(process)
                    say(f"{process.job.name}: compiled")
                else:
                    process.measure()  # says why it failed
            if not done:
                for process in pending.values():
                    process.stop("not compiled in time")
                break
    for job in waiting:
        say(f"{job.name}: left out: no time to compile it")
    for process in sorted(ready, key=lambda process: wave.index(process.job)):
        if time.monotonic() > until:
            process.stop("the time is over")
        else:
            yield from process.measure()


def be(job: Job) -> None:
    """What a process does."""
    torch.backends.cuda.matmul.allow_tf32 = False

    def ready() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    for record in work(job, ready):
        if job.kind == "parity":  # it takes no time: others may go on beside
            ready()
        print(json.dumps(record), flush=True)


def table(records: list[dict[str, Any]], device: str) -> str:
    lines = [
        f"On {device}, torch {torch.__version__}: the largest difference of logits to the CPU's in float32, relative "
        "to the largest logit.",
        "",
        "| walk | whole | by a cache | by compiled steps | graphs | breaks | not recorded as CUDA graphs |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in (r for r in records if r["kind"] == "parity"):
        ways = " | ".join(f"{r[way]:.0e}" for way in ("whole", "cache", "compiled"))
        lines.append(f"| `{r['walk']}` | {ways} | {r['graphs']} | {r['breaks']} | {r['not_recorded']} |")
    lines += ["", "| | size | walk | batch | context | tokens/s | of Llama's | peak | roofline share |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    measured = [r for r in records if r["kind"] != "parity"]
    for r in measured:
        same = ("kind", "size", "batch", "context")
        llama = [o for o in measured if o["name"] == "llama" and all(o[key] == r[key] for key in same)]
        ratio = f"{r['tokens_per_s'] / llama[0]['tokens_per_s']:.2f}" if llama else ""
        share = f"{r['roofline_share']:.2f}" if r.get("roofline_share") else ""
        peak = f"{r['peak_bytes'] / 1e9:.2f} GB" if r["peak_bytes"] else ""
        lines.append(
            f"| {r['kind']} | {r['size']} | `{r['name']}` | {r['batch']} | {r['context']:,} | "
            f"{r['tokens_per_s']:,.0f} | {ratio} | {peak} | {share} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--toy", action="store_true", help="toy sizes on the CPU, to see whether this script works")
    parser.add_argument("--seconds", type=float, default=290, help="after which nothing more begins (default: 290)")
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), help="models that are compiled at the same time")
    parser.add_argument("--json", action="store_true", help="one JSON object per measurement on standard output")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        be(Job(**json.loads(args.job)))
        return
    if not args.toy and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --toy runs the script on the CPU")
    device = torch.device("cpu" if args.toy else "cuda")
    name = "a CPU, toy sizes" if args.toy else torch.cuda.get_device_name()
    until, waves = time.monotonic() + args.seconds, toy_jobs() if args.toy else jobs()
    bandwidth = copy_bandwidth(device, 1 << (20 if args.toy else 30))
    if not args.toy:
        torch.cuda.empty_cache()
    records = []
    for index, wave in enumerate(waves):
        now = time.monotonic()
        compiled_by = now + (until - now) * 0.8 / (len(waves) - index)  # the rest is for measuring
        for record in run(wave, compiled_by, until, args.at_once):
            if record.get("read_bytes"):
                record["roofline_share"] = record["read_bytes"] / bandwidth * record["tokens_per_s"]
            records.append(record)
            if args.json:
                print(json.dumps(record), flush=True)
    made = table(records, name)
    if not args.json:
        print(made)
    if not args.toy:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    wrong = [
        r["walk"]
        for r in records
        if r["kind"] == "parity" and (max(r["whole"], r["cache"], r["compiled"]) > PARITY or r["breaks"])
    ]
    if wrong:
        sys.exit(f"not as on the CPU, or broken into graphs: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
