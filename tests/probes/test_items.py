"""Items are the same text to every tokenizer, as short as can be; windows show all of it once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import FoveateError
from foveate.probes.items import Items, find_tokens, shared_items, windows
from foveate.probes.words import segment
from probes.word_models import LEARNED_FROM, tokenizers

TOKENIZERS = tokenizers()
FIND = {name: find_tokens(tokenizer) for name, tokenizer in TOKENIZERS.items()}
PAIRS = [("bytes", "bpe"), ("bpe", "llama"), ("trimmed", "bytes"), ("across", "bytes"), ("llama", "across")]
texts = st.lists(st.sampled_from([*LEARNED_FROM.split(), " ", " ", "\n", " é🙂", "東"]), max_size=25).map("".join)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_stand_where_they_are(name) -> None:
    """The text up to a token's end is what the ids up to it decode to, but for a character that is cut."""
    tokenizer, text = TOKENIZERS[name], LEARNED_FROM + "\n  東é🙂 .\n"
    tokens = FIND[name](text)
    for at in range(len(tokens.ids)):
        start = tokenizer.decode(tokens.ids[: at + 1], clean_up_tokenization_spaces=False).rstrip("\ufffd")
        assert text.startswith(start)
        whole = at + 1 == len(tokens.ids) or tokens.starts[at + 1] >= tokens.ends[at]
        assert not whole or len(start) == tokens.ends[at]
    assert tokens.ends[-1] == len(text)


@pytest.mark.parametrize("pair", PAIRS)
@given(text=texts)
@settings(max_examples=60)
def test_an_item_is_the_same_text_to_all(pair, text) -> None:
    tokenized = [FIND[name](text) for name in pair]
    segments = segment(text)
    items = shared_items(segments, tokenized)
    assert items.segments.tolist() == [np.flatnonzero(segments.ends == end)[0] + 1 for end in items.ends]
    for name, tokens, ends in zip(pair, tokenized, items.tokens, strict=True):
        starts, token_starts = [0, *items.ends][:-1], [0, *ends][:-1]
        for start, end, first, last in zip(starts, items.ends, token_starts, ends, strict=True):
            decoded = TOKENIZERS[name].decode(tokens.ids[first:last], clean_up_tokenization_spaces=False)
            assert decoded == text[start:end]


@pytest.mark.parametrize("pair", PAIRS)
@given(text=texts)
@settings(max_examples=60)
def test_items_are_as_short_as_can_be(pair, text) -> None:
    tokenized = [FIND[name](text) for name in pair]
    segments = segment(text)
    for end in set(segments.ends.tolist()) - set(shared_items(segments, tokenized).ends.tolist()):
        across = [
            min(tokens.starts[at:]) < end < tokens.ends[at] for tokens in tokenized for at in range(len(tokens.ids))
        ]
        assert any(across)


def test_tokens_that_join_words_join_their_items() -> None:
    text = "the cat sat on a mat"
    alone = shared_items(segment(text), [FIND["bytes"](text)])
    joined = shared_items(segment(text), [FIND[name](text) for name in ("bytes", "across")])
    assert len(alone.ends) == 6
    assert len(joined.ends) < 6


def items_of(*lengths: list[int]) -> Items:
    """Items of so many tokens in each tokenizer."""
    count = np.arange(1, len(lengths[0]) + 1)
    return Items(ends=count, segments=count, tokens=tuple(np.cumsum(length) for length in lengths))


@given(
    lengths=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), min_size=1, max_size=60),
    context=st.integers(2, 20),
)
@settings(max_examples=200)
def test_windows_score_every_item_that_fits_once(lengths, context) -> None:
    found = list(windows(items_of(*map(list, zip(*lengths, strict=True))), context))
    scored = [item for window in found for item in range(window.scored, window.end)]
    assert scored == [item for item, length in enumerate(lengths) if max(length) <= context]
    for window in found:
        assert window.start <= window.scored < window.end
        for tokenizer in (0, 1):
            assert sum(length[tokenizer] for length in lengths[window.start : window.end]) <= context
        room = [context - sum(n[t] for n in lengths[window.start : window.end]) for t in (0, 1)]
        before = lengths[window.start - 1] if window.start else None
        # as much context as fits: the item before would be too much, in one tokenizer or by itself
        assert before is None or max(before) > context or any(b > r for b, r in zip(before, room, strict=True))


def test_all_but_the_first_window_have_half_of_it_as_context() -> None:
    found = list(windows(items_of([1] * 100, [1] * 100), 20))
    assert [(w.start, w.scored, w.end) for w in found[:3]] == [(0, 0, 20), (10, 20, 30), (20, 30, 40)]


def test_a_tokenizer_without_offsets_is_refused(monkeypatch) -> None:
    monkeypatch.setattr("foveate.probes.items.document_backend", lambda tokenizer: None)
    with pytest.raises(FoveateError, match="cannot say which characters a token stands for"):
        find_tokens(TOKENIZERS["bytes"])
