"""A run as a folder to publish: weights, tokenizer, model card, and a file by which ``trust_remote_code`` loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foveate.errors import FoveateError
from foveate.loading import load
from foveate.loading.saving import check_new, save_new
from foveate.train.metrics import read_metrics
from foveate.train.settings import settings_of


def export(run: str | Path, out: str | Path, *, dtype: str = "auto") -> Path:
    """Write the model of ``run`` to the new folder ``out``; it appears only once it is whole.

    Args:
        dtype: of the weights: ``fp32``, ``bf16``, ``fp16``, or ``auto`` for what the run has.

    Raises:
        FoveateError: ``run`` is not a Foveate model, ``out`` exists, or the disk is full.
    """
    run, out = Path(run).expanduser(), Path(out).expanduser()
    check_new(out)
    model, tokenizer = load(run, device="cpu", dtype=dtype)
    if model.config.model_type != "foveate":
        raise FoveateError(f"{run} holds a {model.config.model_type}, which every installation loads; just copy it")
    save_new(out, model, tokenizer, card=model_card(model, run, out.name))
    return out


def model_card(model: Any, run: Path, name: str) -> str:
    """The README of a published model: what it is, how to load it, what it was trained on, how well it predicts."""
    import yaml

    spec = model.config.spec
    settings = settings_of(run)
    scores = [record for record in read_metrics(run) if record.get("kind") == "valid"]
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["foveate", "multi-scale", "text-generation"],
    }
    facts = [
        ("walk", f"`{spec}`"),
        ("parameters", f"{model.num_parameters():,}"),
        ("vocabulary", f"{model.config.vocab_size:,}"),
        ("context in training", f"{model.config.max_position_embeddings:,} tokens"),
    ]
    if settings is not None:
        facts.append(("data", ", ".join(f"`{Path(source).name}`" for source in settings.data)))
    if scores:
        facts.append(("tokens trained on", f"{scores[-1]['tokens']:,}"))
        facts.append(("held-out text", f"{scores[-1]['bpb']:.4f} bits per byte"))
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {name}",
        "A multi-scale language model: some of its layers work on tokens, others on units of several tokens. In the "
        "walk below, `N@S` is N layers at a stride of S tokens.",
        "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in facts)]),
        "```python\n"
        "# pip install foveate\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)\n'
        "```",
    ]
    if settings is not None:
        parts.append(f"Trained with\n\n```sh\n{settings.command(public=True)}\n```")
    return "\n\n".join(parts) + "\n"
