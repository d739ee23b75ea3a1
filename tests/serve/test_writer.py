import pytest

from foveate.serve.writer import Writer
from serve.serving import byte_tokenizer


def through(text: str, stops: list[str]) -> list[str]:
    writer = Writer(byte_tokenizer(), [], stops)
    out = []
    for byte in text.encode():
        out.append(writer.push(byte))
        if writer.stopped:
            break
    return [piece for piece in [*out, writer.end()] if piece]


@pytest.mark.parametrize(
    ("text", "stops", "pieces"),
    [
        ("abcde", ["cd"], ["a", "b"]),
        ("abcxe", ["cd"], ["a", "b", "cx", "e"]),
        ("aaaab", ["aab"], ["a", "a"]),
        ("abc", ["cd"], ["a", "b", "c"]),
        ("ab", ["zz", "ab"], []),
        ("日本語", ["語"], ["日", "本"]),
        ("no", [], ["n", "o"]),
    ],
)
def test_stop_sequences_over_several_pieces(text: str, stops: list[str], pieces: list[str]) -> None:
    assert through(text, stops) == pieces


def test_a_character_that_is_cut_loses_nothing_before_it() -> None:
    writer = Writer(byte_tokenizer(), [])
    assert "".join(writer.push(byte) for byte in "日本語".encode()[:-1]) + writer.end() == "日本"
