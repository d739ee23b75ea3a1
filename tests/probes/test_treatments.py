"""What is moved, what is kept whole, and where other text comes from."""

from __future__ import annotations

import numpy as np
import pytest

from foveate.data.tokenizer import make_tokenizer
from foveate.errors import FoveateError
from foveate.probes.sequences import cut_sequences, foreign_text, parts_of_one, split_at
from foveate.probes.treatments import Unit, permute

TEXT = 'One two. "Three," he said!  Four\n\nfive? Six'


def pieces(unit: str, kind: str) -> list[str]:
    """TEXT as the units that a tokenizer's tokens make of it."""
    tokenizer = make_tokenizer(kind, lambda: [TEXT * 50])
    ids = np.array([tokenizer(TEXT, add_special_tokens=False)["input_ids"]])
    number = Unit.parse(unit).number(ids, tokenizer)[0]
    return [tokenizer.decode(ids[0][number == unit]) for unit in range(number[-1] + 1)]


@pytest.mark.parametrize("kind", ["bytes", "bpe:300"])
def test_words_and_sentences_of_any_tokenizer(kind) -> None:
    assert pieces("word", kind) == ["One", " two.", ' "Three,"', " he", " said!", "  Four", "\n\nfive?", " Six"]
    assert pieces("sentence", kind) == ["One two.", ' "Three," he said!', "  Four\n\nfive?", " Six"]


def test_words_of_sentencepiece() -> None:
    class Pieces:
        def convert_ids_to_tokens(self, ids):
            return [["▁On", "e", "▁two", ".", "<0x0A>", "▁Three"][i] for i in ids]

    ids = np.arange(6)[None]
    assert Unit.parse("word").number(ids, Pieces()).tolist() == [[0, 0, 1, 1, 2, 2]]
    assert Unit.parse("sentence").number(ids, Pieces()).tolist() == [[0, 0, 0, 0, 1, 1]]


def test_blocks() -> None:
    assert Unit.parse("block:3").number(np.zeros((1, 7)), None).tolist() == [[0, 0, 0, 1, 1, 1, 2]]
    assert str(Unit.parse("block:3")) == "block:3"


def test_units_move_whole_and_every_order_is_as_likely() -> None:
    ids = np.tile([10, 11, 20, 30, 31, 32], (6000, 1))
    units = np.tile([0, 0, 1, 2, 2, 2], (6000, 1))
    orders = permute(ids, units, 2, np.random.default_rng(0))
    assert orders.shape == (6000, 2, 6)
    a, b, c = [10, 11], [20], [30, 31, 32]
    found, counts = np.unique(orders.reshape(-1, 6), axis=0, return_counts=True)
    assert sorted(found.tolist()) == sorted([a + b + c, a + c + b, b + a + c, b + c + a, c + a + b, c + b + a])
    assert counts.min() > 1850


def test_sequences_lie_within_documents_and_do_not_overlap() -> None:
    documents = [np.arange(100 * d, 100 * d + length) for d, length in enumerate([35, 9, 22], 1)]
    found = cut_sequences(documents, 10, 99, seed=0)
    assert found.available == len(found.ids) == 5
    assert len(np.unique(found.ids)) == 50
    assert (np.diff(found.ids, axis=1) == 1).all()
    assert (found.ids // 100 == found.document[:, None] + 1).all()
    assert (cut_sequences(documents, 10, 3, seed=0).ids == found.ids[:3]).all()
    assert not np.array_equal(cut_sequences(documents, 10, 5, seed=1).ids, found.ids)


def test_a_single_long_document_is_cut_into_parts() -> None:
    ids, short = np.arange(100), np.arange(7)
    assert [part.tolist() for part in parts_of_one([short, ids], 40, 10)] == [
        list(range(7)),
        list(range(50)),
        list(range(50, 100)),
    ]
    assert [len(part) for part in parts_of_one([ids], 10, 5)] == [13, 13, 13, 13, 12, 12, 12, 12]
    for others in ([ids, ids], [ids[:19]], [short]):
        assert parts_of_one(others, 10, 8) == others


def test_foreign_text_is_of_every_other_place() -> None:
    documents = [np.arange(0, 6), np.arange(10, 12), np.arange(20, 25), np.arange(30, 33)]
    own = np.repeat([0, 2], 3000)
    drawn = foreign_text(documents, own, 3, 1, np.random.default_rng(0))[:, 0]
    assert (np.diff(drawn, axis=1) == 1).all()
    for document, starts in ((0, [20, 21, 22, 30]), (2, [0, 1, 2, 3, 30])):
        found, counts = np.unique(drawn[own == document, 0], return_counts=True)
        assert found.tolist() == starts
        assert counts.min() > 3000 / len(starts) * 0.85


def test_split_at_keeps_every_character() -> None:
    text = " = A = \nfirst\n = = B = = \nsecond\n = C = \nthird"
    parts = list(split_at([text, "no heading"], "^ = [^=]+ = $"))
    assert parts == [" = A = \nfirst\n = = B = = \nsecond\n", " = C = \nthird", "no heading"]
    with pytest.raises(FoveateError, match=r"--split-at: '\(' is not a regular expression"):
        split_at([], "(")
