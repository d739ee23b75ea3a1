"""Two planted models whose difference on every word is known; buckets, distances, intervals and names by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foveate.errors import FoveateError
from foveate.probes.rare_words import Range, probe_rare
from foveate.probes.word_loss import Reader
from foveate.probes.words import WORD
from probes.word_models import LikesLetters, Planted, RemembersLetters, llama_reader, tokenizers

TOKENIZERS = tokenizers()
TRAIN = ["common " * 120 + "seldom " * 12, "known "]
# zzz and qz are not in the training text; only they have letters that B likes
TEXT = "common zzz common, seldom qz known common. " * 8
NEVER, FEW, SOME, MANY = Range(low=0, high=0), Range(low=1, high=9), Range(low=10, high=99), Range(low=100, high=None)
EDGES = (1, 10, 100)
LIKES = LikesLetters("zq", bonus=3.0)


def reader(name: str, model: Planted) -> Reader:
    return Reader(name=name, model=model, tokenizer=TOKENIZERS["bytes"])


def planted(texts=(TEXT,), **options):
    given = {"edges": EDGES, "context": 64, "progress": False} | options
    return probe_rare(reader("flat", Planted()), reader("likes", LIKES), TRAIN, texts, **given)


def flat_nats(text: str) -> float:
    return len(text) * math.log(257)


def test_a_planted_bonus_for_rare_words_is_found_exactly() -> None:
    found = planted()
    gain = {word: flat_nats(word) - LIKES.nats(word) for word in (" zzz", " qz", " seldom", " common", " known")}
    first = flat_nats("common") - LIKES.nats("common")  # the text begins without a space
    for bucket, gains, distinct in (
        (NEVER, [gain[" zzz"], gain[" qz"]] * 8, 2),
        (FEW, [gain[" known"]] * 8, 1),
        (SOME, [gain[" seldom"]] * 8, 1),
        (MANY, [first] + [gain[" common"]] * 23, 1),
    ):
        cell = found.cell(train_count=bucket)
        assert (cell.count, cell.distinct) == (len(gains), distinct)
        assert cell.delta_nats == pytest.approx(np.mean(gains), rel=1e-5)
        assert cell.nats_a - cell.nats_b == pytest.approx(cell.delta_nats)
    assert found.cell(train_count=NEVER).delta_nats > 0 > found.cell(train_count=MANY).delta_nats
    assert found.train_words == 133


def test_parts_add_up_to_the_difference_in_bits_per_byte() -> None:
    found = planted()
    buckets = [found.cell(train_count=bucket) for bucket in (NEVER, FEW, SOME, MANY)]
    total = found.cell("text").delta_bpb
    assert sum(cell.delta_bpb for cell in buckets) == pytest.approx(found.cell("words").delta_bpb)
    assert found.cell("words").delta_bpb + found.cell("between").delta_bpb == pytest.approx(total)
    assert found.cell("several") is None
    assert total == pytest.approx(found.bpb_a - found.bpb_b)
    assert total == pytest.approx((flat_nats(TEXT) - LIKES.nats(TEXT)) / math.log(2) / len(TEXT), rel=1e-5)
    for bucket in (NEVER, MANY):
        at_distances = [cell for cell in found.cells if cell.train_count == bucket and cell.distance is not None]
        assert sum(cell.count for cell in at_distances) == found.cell(train_count=bucket).count


def test_what_a_model_remembers_shows_by_distance() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    text = " ".join(letters[:20]) + " b " + " ".join(letters[20:]) + " a"
    model = RemembersLetters(bonus=2.0)
    found = probe_rare(
        reader("flat", Planted()), reader("remembers", model), ["a"], [text], context=64, top=1, progress=False
    )
    new, near, far = (found.cell(distance=Range(low=low, high=high)) for low, high in ((0, 0), (1, 16), (17, None)))
    assert (new.count, near, far.count) == (26, None, 2)  # b 19 words ago, a 27
    # the mark, the space and 20 or 26 letters had been read; the space before either was known
    own = [2 * math.log(257) - model.nats(2 + read, known=True) * 2 for read in (20, 26)]
    assert far.delta_nats == pytest.approx(np.mean(own), rel=1e-5)
    assert far.delta_nats > new.delta_nats
    assert (far.ci_low, far.ci_high) == (None, None)  # of one window


def test_words_are_named_with_the_place_where_they_differ_most() -> None:
    found = planted(top=1)
    assert [(gain.better, gain.word, gain.count, gain.train_count) for gain in found.gains] == [
        ("likes", "zzz", 8, 0),
        ("flat", "known", 8, 1),
        ("flat", "seldom", 8, 12),
        ("flat", "common", 24, 120),
    ]
    zzz = found.gains[0]
    assert (zzz.before, zzz.here, zzz.after) == ("common ", "zzz", " common, seldom qz k")
    assert zzz.total_nats == pytest.approx(8 * zzz.delta_nats) == pytest.approx(8 * zzz.here_nats)
    assert zzz.here_nats == pytest.approx(flat_nats(" zzz") - LIKES.nats(" zzz"), rel=1e-5)
    assert found.gains[3].before == "common zzz "  # more is lost here than in the first place, which has no space


@pytest.mark.parametrize(("texts", "unit", "units"), [(40, "document", 40), (3, "window", 6)])
def test_many_documents_are_resampled_whole_of_few_their_windows(texts, unit, units) -> None:
    found = planted(["common zzz " * 8 for _ in range(texts)])
    assert (found.unit, found.units) == (unit, units)


def test_intervals_of_documents_that_are_all_alike_are_the_difference_itself() -> None:
    found = planted(["common zzz " * 8 for _ in range(40)])
    for cell in found.cells:
        if cell.ci_low is not None:
            assert (cell.ci_low, cell.ci_high) == pytest.approx((cell.delta_nats,) * 2)
            assert (cell.bpb_ci_low, cell.bpb_ci_high) == pytest.approx((cell.delta_bpb,) * 2)  # in bits, as this is


def test_intervals_are_narrow_where_all_words_differ_alike_and_wide_where_not() -> None:
    found = planted([" known" * (1 + number % 5) + " seldom zzz qz" for number in range(40)])
    alike, unlike = found.cell(train_count=FEW), found.cell(train_count=NEVER)
    assert alike.ci_low == pytest.approx(alike.delta_nats) == pytest.approx(alike.ci_high)
    assert unlike.ci_low == pytest.approx(unlike.delta_nats)  # in every document alike
    mixed = planted([word for word in ("zzz", "qz") for _ in range(20)]).cell(train_count=NEVER)
    gains = [flat_nats(word) - LIKES.nats(word) for word in ("zzz", "qz")]
    error = abs(gains[0] - gains[1]) / 2 / math.sqrt(40)
    assert mixed.ci_high - mixed.ci_low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert mixed.ci_low < mixed.delta_nats < mixed.ci_high


def test_tokenizers_may_differ() -> None:
    texts = ["The cat sat, and saw how far away the moon was. " * 3] * 6
    models = [llama_reader(name, TOKENIZERS[name]) for name in ("bytes", "llama")]
    found = probe_rare(*models, ["the cat sat"], texts, progress=False)
    assert found.cell("words").count == sum(len(WORD.findall(text)) for text in texts)
    swapped = probe_rare(*reversed(models), ["the cat sat"], texts, progress=False)
    assert swapped.cell("text").delta_bpb == pytest.approx(-found.cell("text").delta_bpb)


def test_records_are_plain() -> None:
    kinds = [record["kind"] for record in planted().records()]
    assert kinds[0] == "rare_words"
    assert set(kinds[1:]) == {"cell", "gain"}
    gains = [record for record in planted().records() if record["kind"] == "gain"]
    assert gains[0]["bucket"] == {"low": 0, "high": 0}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"edges": (10, 10)}, "--buckets: 10 10 must be rising numbers from 1"),
        ({"edges": (0, 5)}, "--buckets: 0 5 must be rising numbers from 1"),
        ({"texts": ["?!", ""]}, "there are no words to score"),
        ({"texts": ["?! " + "x" * 70]}, "no word can be scored by itself: each is longer than the 64 tokens"),
        ({"train": ["—", "..."]}, "there are no words in the training text"),
        ({"context": 65}, "--context: 65 is more than the 64 positions of a"),
    ],
)
def test_what_cannot_be_compared_is_said(given, line) -> None:
    options = {"train": TRAIN, "texts": [TEXT], "progress": False} | given
    with pytest.raises(FoveateError) as error:
        probe_rare(reader("a", Planted()), reader("b", LIKES), **options)
    assert str(error.value).startswith(line)
