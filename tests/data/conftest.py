"""What the tests of the data package share."""

import pytest

from foveate.data.tokenizer import make_tokenizer


@pytest.fixture(scope="session")
def sample():
    return [
        f"{number} grey cats sat; {number * 7} naïve “mice” ran…\r\n\tThe <|endoftext|> of 東京, it's <|endoftext|>!\n"
        for number in range(300)
    ]


@pytest.fixture(scope="session")
def bytes_tokenizer():
    return make_tokenizer("bytes", list)


@pytest.fixture(scope="session")
def bpe_tokenizer(sample):
    return make_tokenizer("bpe:400", lambda: sample, progress=False)


@pytest.fixture(params=["bytes", "bpe"], scope="session")
def tokenizer(request):
    return request.getfixturevalue(f"{request.param}_tokenizer")
