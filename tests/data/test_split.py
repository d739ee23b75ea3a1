"""The split shares out all text, the same way whatever the order of files."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.data.split import split_documents, survey_documents
from foveate.errors import FoveateError

FRACTIONS = st.floats(0.001, 0.999)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """Writes texts as a .jsonl file and gives its name."""
    path = tmp_path_factory.mktemp("split") / "texts.jsonl"

    def write(texts) -> str:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return str(path)

    return write


def both(data, fraction: float = 0.1) -> tuple[list[str], list[str]]:
    train, valid = (list(split_documents(data, split=side, valid_fraction=fraction)) for side in ("train", "valid"))
    return train, valid


@settings(max_examples=60)
@given(texts=st.sets(st.text(min_size=1), min_size=20, max_size=60), fraction=FRACTIONS, shuffle=st.randoms())
def test_whole_documents_whatever_their_order(lines, texts, fraction, shuffle):
    ordered = [*sorted(texts), "some text"]
    train, valid = both(lines(ordered), fraction)
    assert Counter(train + valid) == Counter(ordered)
    assert not set(train) & set(valid)
    assert abs(len(valid) - fraction * len(ordered)) <= 2
    shuffle.shuffle(ordered)
    train_again, valid_again = both(lines(ordered), fraction)
    assert Counter(train_again) == Counter(train)
    assert Counter(valid_again) == Counter(valid)


@settings(max_examples=100)
@given(
    texts=st.lists(st.text(st.sampled_from("ab \n\r🙂"), min_size=2) | st.text(min_size=2), min_size=1, max_size=18),
    fraction=FRACTIONS,
)
def test_few_documents_give_their_ends(lines, texts, fraction):
    train, valid = both(lines([*texts, "some text"]), fraction)
    assert [head + tail for head, tail in zip(train, valid, strict=True)] == [*texts, "some text"]


def test_ends_are_cut_at_a_line_where_one_is_near(tmp_path):
    def valid_of(text: str) -> str:
        (tmp_path / "a.txt").write_text(text, newline="")
        [head], [tail] = both(str(tmp_path / "a.txt"))
        assert head + tail == text
        return tail

    assert valid_of("0123456789\r\n" * 100) == "0123456789\r\n" * 10
    assert valid_of("x" * 88 + "\n" + "y" * 11) == "y" * 11  # the line before is nearer to the tenth than none
    assert valid_of("x" * 92 + "\n" + "y" * 7) == "y" * 7
    assert valid_of("title\n" + "é" * 94) == "é" * 10
    assert valid_of("ab") == "b"
    assert valid_of("abc") == "c"
    # of a tenth that would be 10 of 100 characters, a line makes 5 to 15, no more and no less
    for ends_at, end in ((84, 15), (83, 10), (94, 5), (95, 10)):
        assert len(valid_of("x" * ends_at + "\n" + "y" * (99 - ends_at))) == end


def test_repeated_documents_stay_together(lines):
    texts = [f"text {number % 30}" for number in range(90)]
    train, valid = both(lines(texts), 0.2)
    assert not set(train) & set(valid)
    assert Counter(train + valid) == Counter(texts)


def test_the_survey_counts_bytes_of_each_side(lines):
    for count in (3, 40):
        data = lines(["é" * (10 * number + 10) + "\n" for number in range(count)])
        survey = survey_documents(data)
        train, valid = both(data)
        assert survey.text_bytes.tolist() == [20 * number + 21 for number in range(count)]
        assert survey.bytes_of("all", 0.1) == sum(len(text.encode()) for text in train + valid)
        assert survey.bytes_of("valid", 0.1) == pytest.approx(len("".join(valid).encode()), abs=6 if count < 20 else 0)
        assert survey.bytes_of("train", 0.1) == survey.bytes_of("all", 0.1) - survey.bytes_of("valid", 0.1)


def test_a_side_without_text(lines):
    with pytest.raises(FoveateError, match=r"the train split is empty: 25 documents, .*valid_fraction 0\.01"):
        list(split_documents(lines(["same"] * 25), split="train"))
    with pytest.raises(FoveateError, match="the valid split is empty: 1 document,"):
        list(split_documents(lines(["x"]), split="valid"))


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, float("nan")])
def test_impossible_fractions(lines, fraction):
    with pytest.raises(FoveateError, match="valid_fraction is"):
        split_documents(lines(["x"]), split="train", valid_fraction=fraction)


def test_unknown_split_and_missing_data_are_reported_at_once(lines):
    with pytest.raises(FoveateError, match="split is 'test'; choose one of all, train, valid"):
        split_documents(lines(["x"]), split="test")
    for split in ("all", "train"):
        with pytest.raises(FoveateError, match="no such file"):
            split_documents("nope.txt", split=split)
