"""Texts that a run writes into its log, and the memory that it tells of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foveate.devices import peak_memory, resident_bytes
from foveate.errors import FoveateError
from foveate.loading import load
from foveate.train.metrics import read_metrics
from foveate.train.run import train
from foveate.train.samples import write_text
from train.comparing import weights


def test_a_run_writes_texts_and_is_the_same_run(settings, undisturbed, capsys) -> None:
    result = train(replace(settings, sample_every=5, sample_prompt="the cat"))
    samples = [record for record in read_metrics(result.path) if record["kind"] == "sample"]
    assert [record["step"] for record in samples] == [5, 10, 12]
    assert {record["prompt"] for record in samples} == {"the cat"}
    assert samples[0]["text"] != samples[-1]["text"], "what was learnt changes it"
    assert "step 5/12: the cat" in " ".join(capsys.readouterr().err.split())
    expected = weights(undisturbed.path)
    for name, weight in weights(result.path).items():
        assert torch.equal(weight, expected[name]), "the run's random numbers and mode are its own"
    model, tokenizer = load(result.path)
    assert write_text(model, tokenizer, "the cat", seed=settings.seed, most=32) == samples[-1]["text"]


def test_a_text_ends_where_the_model_has_no_more_positions(undisturbed) -> None:
    model, tokenizer = load(undisturbed.path)
    ids = []
    model.register_forward_pre_hook(lambda *args: ids.append(args[2]["input_ids"].shape[1]), with_kwargs=True)
    write_text(model, tokenizer, "the cat sat on", seed=1, most=20)
    assert max(ids) < 20
    assert ids[0] == 15, "the mark that a document begins after, and the prompt"


def test_lines_of_the_log_tell_the_peak_of_memory(undisturbed) -> None:
    told = [record["memory_bytes"] for record in read_metrics(undisturbed.path) if record["kind"] == "train"]
    resident = resident_bytes()
    if resident is None:
        assert set(told) == {None}
        return
    assert told == sorted(told)
    assert 50_000_000 < told[0] <= told[-1] <= resident[1] == peak_memory(torch.device("cpu"))


def test_shards_write_no_texts(settings) -> None:
    with pytest.raises(FoveateError, match="--sample-every: with --parallel fsdp no process has the whole model"):
        replace(settings, sample_every=5, parallel="fsdp")
