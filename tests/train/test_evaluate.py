from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from foveate.errors import FoveateError
from foveate.scoring import IGNORED, document_windows
from foveate.train.documents import Document, as_documents, cut
from foveate.train.evaluate import batches, evaluate

TEXTS = ["A short one.", "x", "The naïve cat — 東京 — sat on the mat, and sat, and sat. " * 5, "", "No. " * 40]


def rolling_windows(ids: list[int], prefix: int, context: int) -> list[tuple[list[int], list[int]]]:
    """(inputs, predicted ids) as lm-eval defines them, with one token of context: the last ids of inputs predict."""
    first = min(context, len(ids))
    windows = [([prefix, *ids[: first - 1]], ids[:first])] if ids else []
    predicted = first
    while predicted < len(ids):
        end = predicted + min(len(ids) - predicted, context)
        windows.append((ids[end - context - 1 : end - 1], ids[predicted:end]))
        predicted = end
    return windows


def as_lists(inputs, targets) -> list[tuple[list[int], list[int]]]:
    scored = [[int(id) for id in row if id != IGNORED] for row in targets]
    return list(zip(inputs.tolist(), scored, strict=True))


@given(length=st.integers(0, 40), context=st.integers(1, 12))
@settings(max_examples=100)
def test_windows_are_those_of_lm_eval(length, context) -> None:
    ids = list(range(1, length + 1))
    made = [row for windows in document_windows(np.array(ids), 0, context) for row in as_lists(*windows)]
    assert made == rolling_windows(ids, 0, context)


@given(lengths=st.lists(st.integers(0, 30), max_size=12), context=st.integers(1, 9), rows=st.integers(1, 5))
@settings(max_examples=100)
def test_batches_hold_every_window_once(lengths, context, rows) -> None:
    documents = [list(range(100 * d + 1, 100 * d + 1 + n)) for d, n in enumerate(lengths)]
    expected = [window for ids in documents for window in rolling_windows(ids, 0, context)]
    found = []
    for inputs, targets in batches((np.array(ids, int) for ids in documents), 0, context, rows):
        assert inputs.shape == targets.shape
        assert len(inputs) <= rows
        for row, (_, ids) in enumerate(as_lists(inputs, targets)):
            end = np.flatnonzero(targets[row] != IGNORED)[-1] + 1
            found.append((inputs[row, :end].tolist(), ids))
    assert sorted(found) == sorted(expected)


def direct_nll(folder, texts, context) -> tuple[float, int, int]:
    """By Auto classes and cross-entropy, a window at a time, in the plainest way."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    total, tokens = 0.0, 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for inputs, predicted in rolling_windows(ids, tokenizer.eos_token_id, context):
            with torch.no_grad():
                logits = model(torch.tensor([inputs])).logits[0, -len(predicted) :]
            total += torch.nn.functional.cross_entropy(logits, torch.tensor(predicted), reduction="sum").item()
            tokens += len(predicted)
    return total, tokens, sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("context", [2, 16, 64])
def test_agrees_with_a_direct_computation(tmp_path, llama, tokenizer, context) -> None:
    llama.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    nats, tokens, text_bytes = direct_nll(tmp_path, TEXTS, context)
    result = evaluate(llama, tokenizer, TEXTS, context=context, batch=3)
    assert (result.tokens, result.bytes, result.context) == (tokens, text_bytes, context)
    assert result.bpb == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-6)
    assert result.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert result.nll_per_token == pytest.approx(nats / tokens, rel=1e-6)


def test_the_batch_does_not_matter(llama, tokenizer) -> None:
    results = [evaluate(llama, tokenizer, TEXTS, context=16, batch=batch).bpb for batch in (None, 1, 4)]
    assert results == pytest.approx([results[0]] * 3, rel=1e-6)


def test_a_cap_scores_whole_windows_and_counts_their_bytes(llama, tokenizer) -> None:
    result = evaluate(llama, tokenizer, TEXTS, context=16, max_tokens=70)
    # 12 and 1 tokens, then four windows of the third document reach 70: 64 of its bytes
    beginning = TEXTS[2].encode()[:64].decode(errors="ignore")
    assert result.tokens == 12 + 1 + 64
    assert result.bytes == 12 + 1 + len(beginning.encode())
    assert result.bpb == pytest.approx(evaluate(llama, tokenizer, [*TEXTS[:2], beginning], context=16).bpb, rel=0.02)


def test_a_cut_inside_a_character_counts_whole_ones(tokenizer) -> None:
    [document] = as_documents(tokenizer, ["東京"])
    assert [cut(document, n, tokenizer).text_bytes for n in (3, 4, 5, 6, 9)] == [3, 3, 3, 6, 6]


def test_special_tokens_spelled_out_are_text(llama, tokenizer) -> None:
    result = evaluate(llama, tokenizer, ["<|endoftext|>"], context=16)
    assert (result.tokens, result.bytes) == (13, 13)


def test_a_batch_beyond_memory_is_refused_before_it_is_tried(llama, tokenizer, monkeypatch) -> None:
    monkeypatch.setattr("foveate.scoring.free_memory", lambda device: 16 * 257 * 4 * 3)
    assert evaluate(llama, tokenizer, TEXTS, context=16, batch=3).tokens
    with pytest.raises(FoveateError, match=r"scoring 4 windows at once would take over .*choose a smaller --batch"):
        evaluate(llama, tokenizer, TEXTS, context=16, batch=4)


def test_the_model_is_left_in_its_mode(llama, tokenizer) -> None:
    llama.train()
    evaluate(llama, tokenizer, TEXTS, context=16)
    assert llama.training
    llama.eval()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"context": 0}, "--context: 0 must be from 1 to 64"),
        ({"context": 65}, "--context: 65 must be from 1 to 64"),
        ({"documents": []}, "there is no text to score"),
        ({"documents": [""]}, "there is no text to score"),
        ({"documents": [Document(ids=np.array([1, 257]), text_bytes=2)]}, "document 1 has token id 257"),
    ],
)
def test_what_cannot_be_scored_is_said(llama, tokenizer, given, line) -> None:
    with pytest.raises(FoveateError) as error:
        evaluate(llama, tokenizer, **{"documents": TEXTS, "context": 16, **given})
    assert str(error.value).startswith(line)
