"""Everything worth knowing of two models or more, measured side by side, as records (JSON objects)."""

from __future__ import annotations

import copy
import datetime
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from foveate.bench.decode import time_decoding
from foveate.bench.memory import measure_training_memory
from foveate.bench.paired import Scores, difference, score
from foveate.bench.subjects import Subject
from foveate.bench.train import time_training
from foveate.data.documents import read_documents
from foveate.data.reading import AS_IT_IS, Reading
from foveate.data.split import split_documents
from foveate.devices import pick_dtype
from foveate.errors import FoveateError
from foveate.train.sample import sample
from foveate.train.settings import TrainSettings

Record = dict[str, Any]

LONGEST_WINDOW = 1024  # unless asked for
DEFAULT_BATCH = 4
LONGER = (1, 4, 16)  # contexts to decode at, in windows


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure on, and for how long. ``None`` and empty mean what the first run was trained with.

    Attributes:
        data: text to score; empty for what the runs held out.
        max_bytes: score no more of it than so much.
        context: tokens of a window that is scored, of a training sequence, and read before decoding.
        batch: sequences of a training step.
        decode_contexts: tokens read before decoding; by default 1, 4 and 16 windows.
        decode_tokens, repeats: tokens decoded in each of so many timings; of training, half as many steps again.
    """

    data: tuple[str, ...] = ()
    reading: Reading = AS_IT_IS
    max_bytes: int | None = None
    context: int | None = None
    batch: int | None = None
    decode_contexts: tuple[int, ...] = ()
    decode_tokens: int = 64
    repeats: int = 5


def compare(
    subjects: Sequence[Subject], plan: Plan, *, note: Callable[[str], Any] = lambda line: None
) -> Iterator[Record]:
    """Measure the models and give a record of each measurement as it is made; differences are to the first model.

    Args:
        note: told in a line what is being done.

    Raises:
        FoveateError: no text that is held out from all; a context beyond a model's positions.
    """
    texts, source = evaluation_texts(subjects, plan)
    context = plan.context or _common_context(subjects)
    yield setup(subjects, source=source, text_bytes=sum(len(text.encode()) for text in texts), context=context)
    for subject in subjects:
        yield subject.describe()
        if (curve := subject.curve()) is not None:
            yield curve
    yield from _quality(subjects, texts, context, note)
    yield from _training(subjects, plan, context, note)
    yield from _decoding(subjects, plan, context, note)


def write_sample(
    subject: Subject, prompt: str, *, tokens: int, temperature: float, seed: int, on_text: Callable[[str], Any]
) -> Record:
    """What a model makes of a prompt, told to ``on_text`` piece by piece."""
    written = sample(
        subject.model,
        subject.tokenizer,
        prompt,
        tokens=tokens,
        temperature=temperature,
        seed=seed,
        on_text=on_text,
    )
    options = {"temperature": temperature, "seed": seed}
    return {"kind": "sample", "name": subject.name, "prompt": prompt, **asdict(written), **options}


def setup(subjects: Sequence[Subject], *, source: str, text_bytes: int, context: int) -> Record:
    """Where and on what the measurements were made."""
    import transformers

    from foveate import __version__

    device = subjects[0].model.device
    return {
        "kind": "setup",
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "text": source,
        "text_bytes": text_bytes,
        "context": context,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {
            "foveate": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def evaluation_texts(subjects: Sequence[Subject], plan: Plan) -> tuple[list[str], str]:
    """The documents to score, and in words where they are from.

    Raises:
        FoveateError: there are none that all models have been kept from, as far as their settings tell.
    """
    if plan.data:
        texts, source = read_documents(plan.data, reading=plan.reading), " ".join(plan.data)
    else:
        texts, source = _held_out(subjects)
    kept: list[str] = []
    left = plan.max_bytes or float("inf")
    for text in texts:
        raw = text.encode()
        kept.append(text if len(raw) <= left else raw[: int(left)].decode(errors="ignore"))
        left -= len(raw)
        if left <= 0:
            break
    return kept, source


def _held_out(subjects: Sequence[Subject]) -> tuple[Iterator[str], str]:
    settings = [subject.settings for subject in subjects]
    first = settings[0]
    if first is None or any(other is None or _split_of(other) != _split_of(first) for other in settings):
        raise FoveateError("--data is missing: the models did not all hold out the same text; name some to score")
    if first.valid_data:
        return read_documents(first.valid_data, reading=first.reading), " ".join(first.valid_data)
    if not first.valid_fraction:
        raise FoveateError("--data is missing: the runs held out no text; name some to score")
    texts = split_documents(first.data, split="valid", valid_fraction=first.valid_fraction, reading=first.reading)
    return texts, f"the {100 * first.valid_fraction:.3g}% of {' '.join(first.data)} that training left out"


def _split_of(settings: TrainSettings) -> tuple[Any, ...]:
    return settings.data, settings.valid_data, settings.valid_fraction, settings.reading


def _common_context(subjects: Sequence[Subject]) -> int:
    """The longest window that suits every model, but for those that could read more than most text is worth."""
    trained = [subject.settings.context for subject in subjects if subject.settings is not None]
    limits = [subject.positions for subject in subjects if subject.positions is not None]
    return min(trained + limits if trained else [*limits, LONGEST_WINDOW])


def _quality(
    subjects: Sequence[Subject], texts: list[str], context: int, note: Callable[[str], Any]
) -> Iterator[Record]:
    scores: list[Scores] = []
    for subject in subjects:
        note(f"{subject.name}: scoring {sum(map(len, texts)) / 1e3:,.0f} thousand characters")
        scores.append(score(subject.model, subject.tokenizer, texts, context=context))
        yield {"kind": "quality", "name": subject.name, **asdict(scores[-1].evaluation)}
    for subject, scored in zip(subjects[1:], scores[1:], strict=True):
        yield {
            "kind": "difference",
            **difference(scored, scores[0], name=subject.name, against=subjects[0].name).to_json(),
        }


def _training(subjects: Sequence[Subject], plan: Plan, context: int, note: Callable[[str], Any]) -> Iterator[Record]:
    runs = [subject.settings for subject in subjects if subject.settings is not None]
    batch = plan.batch or (runs[0].batch // runs[0].accumulate if runs else DEFAULT_BATCH)
    bf16 = pick_dtype(runs[0].dtype if runs else "auto", subjects[0].model.device) == "bf16"
    for subject in subjects:
        note(f"{subject.name}: counting the memory of a training step of {batch} x {context:,} tokens")
        measured = measure_training_memory(subject.model, name=subject.name, batch=batch, context=context, bf16=bf16)
        yield {"kind": "training_memory", **measured.to_json()}
    note("timing training steps, one of each model in turn")
    copies = {subject.name: copy.deepcopy(subject.model) for subject in subjects}
    for timed in time_training(copies, context=context, batch=batch, steps=plan.repeats * 3 // 2, bf16=bf16):
        yield {"kind": "training_speed", **timed.to_json()}


def _decoding(subjects: Sequence[Subject], plan: Plan, context: int, note: Callable[[str], Any]) -> Iterator[Record]:
    limits = [
        max(1, s.positions - plan.decode_tokens) for s in subjects if not s.reads_beyond_positions and s.positions
    ]
    wanted = plan.decode_contexts or tuple(times * context for times in LONGER)
    contexts = sorted({min([length, *limits]) for length in wanted})
    models = {subject.name: subject.model for subject in subjects}
    times = time_decoding(models, context=contexts, tokens=plan.decode_tokens, repeats=plan.repeats, note=note)
    for timed in times:
        yield {"kind": "decode", **timed.to_json()}
