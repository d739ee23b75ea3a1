"""The loss of words against a slow computation from the definition, token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from foveate.errors import FoveateError
from foveate.probes.items import find_tokens, shared_items, windows
from foveate.probes.word_loss import BETWEEN_WORDS, NOT_SEEN, SEVERAL_WORDS, word_losses
from foveate.probes.words import WORD, fold, segment
from foveate.train.evaluate import evaluate
from probes.word_models import LEARNED_FROM, llama_reader, tokenizers

TOKENIZERS = tokenizers()
TEXTS = ["The cat sat, and The Cat saw. " * 4 + LEARNED_FROM, "A mat?", "", "東京 — " + LEARNED_FROM * 2]


def readers(*names):
    return [llama_reader(name, TOKENIZERS[name], seed=seed) for seed, name in enumerate(names)]


def slow_losses(readers, text, context):
    """Of each scored item its text, its losses, and how many words back its one word was seen in its window."""
    tokenized = [find_tokens(reader.tokenizer)(text) for reader in readers]
    items = shared_items(segment(text), tokenized)
    starts = [0, *items.ends][:-1]
    for window in windows(items, context):
        begin, end = starts[window.start], items.ends[window.end - 1]
        nats = []
        for reader, tokens in zip(readers, tokenized, strict=True):
            within = (tokens.ends > begin) & (tokens.ends <= end)
            ids, ends = tokens.ids[within].tolist(), tokens.ends[within].tolist()
            assert reader.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text[begin:end]
            logits = reader.model(torch.tensor([[reader.tokenizer.bos_token_id, *ids[:-1]]])).logits[0]
            losses = [-logits[at].log_softmax(0)[token].item() for at, token in enumerate(ids)]
            nats.append(list(zip(ends, losses, strict=True)))
        for item in range(window.scored, window.end):
            here = text[starts[item] : items.ends[item]]
            own = [sum(loss for end, loss in model if starts[item] < end <= items.ends[item]) for model in nats]
            words = WORD.findall(here)
            before = [fold(word) for word in WORD.findall(text[begin : starts[item]])]
            again = len(words) == 1 and fold(words[0]) in before
            yield here, own, before[::-1].index(fold(words[0])) + 1 if again else NOT_SEEN


@pytest.mark.parametrize("names", [("bytes", "bpe"), ("bpe", "llama"), ("across", "trimmed")])
@pytest.mark.parametrize("context", [12, 60])
def test_agrees_with_a_slow_computation(names, context) -> None:
    models = readers(*names)
    found = word_losses(models, TEXTS, context=context, batch=3, progress=False)
    expected = [(text, *item) for text in range(len(TEXTS)) for item in slow_losses(models, TEXTS[text], context)]
    assert found.text.tolist() == [text for text, *_ in expected]
    np.testing.assert_allclose(found.nats.T, [nats for _, _, nats, _ in expected], rtol=1e-4, atol=1e-5)
    assert found.distance.tolist() == [distance for *_, distance in expected]
    assert found.bytes.tolist() == [len(here.encode()) for _, here, *_ in expected]
    for item, (text, here, *_) in enumerate(expected):
        words = WORD.findall(here)
        kind = {0: BETWEEN_WORDS, 1: found.word[item]}.get(len(words), SEVERAL_WORDS)
        assert found.word[item] == kind
        shown = TEXTS[text][found.start[item] : found.end[item]]
        if len(words) == 1:
            assert [shown, found.vocabulary[found.word[item]]] == [words[0], fold(words[0])]
        else:
            assert shown == here


def test_all_of_a_text_in_one_window_is_what_eval_says() -> None:
    [reader] = [llama_reader("bpe", TOKENIZERS["bpe"], positions=512)]
    found = word_losses([reader], TEXTS, progress=False)
    expected = evaluate(reader.model, reader.tokenizer, TEXTS, context=512, progress=False)
    assert found.nats.sum() / math.log(2) / found.bytes.sum() == pytest.approx(expected.bpb, rel=1e-6)
    assert found.context == 512
    assert found.left_out == 0


def test_two_tokenizers_of_the_same_words_are_scored_on_the_same_items() -> None:
    found = word_losses(readers("bytes", "llama"), TEXTS, context=60, progress=False)
    assert found.nats.shape == (2, len(found.word))
    assert (found.nats > 0).all()
    assert (found.word != SEVERAL_WORDS).all()
    assert found.bytes.sum() == sum(len(text.encode()) for text in TEXTS)


def test_a_word_longer_than_a_window_is_left_out() -> None:
    found = word_losses(readers("bytes"), ["one " + "x" * 30 + " two"], context=8, progress=False)
    assert [found.vocabulary[word] for word in found.word] == ["one", "two"]
    assert found.left_out == 1


def test_the_batch_and_the_mode_of_the_model_do_not_matter() -> None:
    [reader] = readers("bytes")
    reader.model.train()
    found = [word_losses([reader], TEXTS, context=16, batch=batch, progress=False).nats for batch in (None, 1, 5)]
    assert reader.model.training
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"context": 65}, "--context: 65 is more than the 64 positions of bytes"),
        ({"context": 1}, "--context: 1 must be at least 2 tokens"),
        ({"texts": []}, "there is no text to score"),
        ({"texts": ["x" * 70]}, "there is no text to score: the data holds no word that fits into 64 tokens"),
    ],
)
def test_what_cannot_be_scored_is_said(given, line) -> None:
    with pytest.raises(FoveateError) as error:
        word_losses(readers("bytes"), **{"texts": TEXTS, "progress": False, **given})
    assert str(error.value).startswith(line)


def test_a_tokenizer_of_another_model_is_told() -> None:
    [reader] = readers("bytes")
    foreign = type(reader)(name="odd", model=reader.model, tokenizer=TOKENIZERS["bpe"])
    with pytest.raises(FoveateError, match=r"odd: document 1 has token id 2.*is the tokenizer the model's own"):
        word_losses([foreign], TEXTS, progress=False)
