"""What generate writes is what reading the whole text again would choose, with a cache, without, and drafted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveate.promises.batches import LEFT
from foveate.promises.caches import token_by_token
from foveate.promises.promise import Case, Comparison, Promise
from foveate.promises.reading import Values, make_rows, padded, read, together
from foveate.promises.subject import Subject

NEW = 6
DRAFTED = 12
PERIOD = 3


def _can_generate(subject: Subject) -> str:
    can = getattr(subject.model, "can_generate", None)
    return "" if can is not None and can() else "it has no generate"


def _drafts(subject: Subject) -> str:
    if reason := _can_generate(subject):
        return reason
    return "its state cannot be taken back" if getattr(subject.model, "_is_stateful", False) else ""


def write(subject: Subject, ids: Tensor, **how: Any) -> Any:
    """What generate puts out for prompts [B, T]: greedy, without an end, with the logits it went by."""
    from transformers import GenerationConfig

    new, mask = how.pop("new", NEW), how.pop("attention_mask", torch.ones_like(ids))
    config = GenerationConfig(
        max_new_tokens=new,
        min_new_tokens=None,
        do_sample=False,
        pad_token_id=subject.padding_id,
        return_dict_in_generate=True,
        output_logits="num_beams" not in how and "prompt_lookup_num_tokens" not in how,
        **how,
    )
    model: Any = subject.model
    before = model.generation_config
    model.generation_config = GenerationConfig()  # the model's own may end, sample, or forbid tokens
    try:
        return model.generate(ids, attention_mask=mask, generation_config=config)
    finally:
        model.generation_config = before


def _generated(use_cache: bool) -> Any:
    """The logits that generate goes by are those of reading all it has written at once."""

    def compare(subject: Subject, case: Case) -> Comparison:
        rows = make_rows(subject, [case.length] * case.rows, case.seed)
        made: list[Any] = []

        def written() -> Any:
            if not made:
                made.append(write(subject, torch.stack(rows), use_cache=use_cache))
            return made[0]

        def by_generate() -> Values:
            logits = torch.stack(written().logits, 1)
            return {f"row {place}": logits[place] for place in range(case.rows)}

        def at_once() -> Values:
            sequences = written().sequences
            columns = torch.arange(case.length - 1, sequences.shape[1] - 1, device=sequences.device)
            return read(subject, [together(list(sequences), columns)])

        return Comparison(
            expected=at_once,
            actual=by_generate,
            input=f"generate({[row.tolist() for row in rows]}, max_new_tokens={NEW}, use_cache={use_cache})",
            watchable=False,
            followed=token_by_token(subject, case) if use_cache else None,
        )

    return compare


def _behind_best(subject: Subject, sequences: Tensor, prompt: int) -> Values:
    """How far each token that was written lies behind the best one, by the logits of reading all at once."""
    columns = torch.arange(prompt - 1, sequences.shape[1] - 1, device=sequences.device)
    found = read(subject, [together(list(sequences), columns)])
    gaps = {}
    for place, sequence in enumerate(sequences):
        logits = found[f"row {place}"].float()
        chosen = logits.gather(-1, sequence[prompt:, None])[:, 0]
        gaps[f"row {place}"] = logits.amax(-1) - chosen
    return gaps


def _assisted(subject: Subject, case: Case) -> Comparison:
    part = make_rows(subject, [PERIOD], case.seed)[0]
    prompt = part.repeat(-(-case.length // PERIOD))[: case.length][None]

    def drafted() -> Values:
        written = write(subject, prompt, new=DRAFTED, prompt_lookup_num_tokens=PERIOD, use_cache=True)
        return _behind_best(subject, written.sequences, case.length)

    return Comparison(
        expected=lambda: {"row 0": torch.zeros(DRAFTED, device=subject.device)},
        actual=drafted,
        input=f"generate([{prompt[0].tolist()}], max_new_tokens={DRAFTED}, prompt_lookup_num_tokens={PERIOD})",
        watchable=False,
    )


def _beams(subject: Subject, case: Case) -> Comparison:
    rows = make_rows(subject, [case.length] * case.rows, case.seed)
    made: list[Any] = []

    def written() -> Any:
        if not made:
            made.append(write(subject, torch.stack(rows), num_beams=3, output_scores=True, use_cache=True))
        return made[0]

    def by_reading() -> Values:
        sequences = written().sequences
        columns = torch.arange(case.length - 1, sequences.shape[1] - 1, device=sequences.device)
        found = read(subject, [together(list(sequences), columns)])
        scores = {}
        for place, sequence in enumerate(sequences):
            chosen = found[f"row {place}"].float().log_softmax(-1).gather(-1, sequence[case.length :, None])
            scores[f"row {place}"] = chosen.mean().view(1)
        return scores

    return Comparison(
        expected=by_reading,
        actual=lambda: {f"row {place}": score.view(1) for place, score in enumerate(written().sequences_scores)},
        input=f"generate({[row.tolist() for row in rows]}, max_new_tokens={NEW}, num_beams=3)",
        watchable=False,
    )


def _padded_prompts(subject: Subject, case: Case) -> Comparison:
    row = make_rows(subject, [case.length], case.seed)[0]
    call = padded(subject, [row], "left", case.length + case.detail)
    made: list[Any] = []

    def written() -> Any:
        if not made:
            made.append(write(subject, call.ids, attention_mask=call.mask, use_cache=True))
        return made[0]

    def at_once() -> Values:
        sequence = written().sequences[0, case.detail :]
        columns = torch.arange(case.length - 1, len(sequence) - 1, device=sequence.device)
        return read(subject, [together([sequence], columns)])

    return Comparison(
        expected=at_once,
        actual=lambda: {"row 0": torch.cat(written().logits)},
        input=f"generate([{row.tolist()}] behind {case.detail} columns of padding, max_new_tokens={NEW})",
        followed=LEFT.compare(subject, case),
    )


def _pads_and_generates(subject: Subject) -> str:
    return _can_generate(subject) or ("" if "attention_mask" in subject.takes else "it takes no attention_mask")


GENERATED, GENERATED_UNCACHED = (
    Promise(
        name=name,
        group="generate",
        says=f"generate {how} a cache goes by the logits of reading its text at once",
        compare=_generated(use_cache),
        lacking=_can_generate,
        rows=(1, 2),
        quick=use_cache,
    )
    for name, how, use_cache in (("generate", "with", True), ("generate-uncached", "without", False))
)
GENERATED_PADDED = Promise(
    name="generate-padded",
    group="generate",
    says="generate writes behind padding on the left what it writes without",
    compare=_padded_prompts,
    lacking=_pads_and_generates,
    details=lambda length: (1, length),
)
BEAMS = Promise(
    name="beams",
    group="generate",
    says="the scores of beam search are those of reading its texts at once",
    compare=_beams,
    lacking=_can_generate,
    rows=(1, 2),
    measure="loss",
    quick=False,
)
ASSISTED = Promise(
    name="assisted",
    group="generate",
    says="drafted tokens are believed only where the model would have written them",
    compare=_assisted,
    lacking=_drafts,
    shortest=4,
    quick=False,
)
