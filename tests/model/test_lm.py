"""Reading in chunks, with padding, and what layers put out: each against rows read whole and alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contracts.checks import make_decoder
from contracts.walks import small
from foveate.errors import FoveateError
from foveate.model.lm import CHUNK_FULL, CHUNK_LOCAL, chunk_of, embed, read

WALK = "1@1:window5 1@4 1@1"
LENGTHS = (13, 6, 9)


class Recorder:
    """A decoder and the rows and columns of each call of it."""

    def __init__(self) -> None:
        self.decoder, self.calls = make_decoder(small(WALK)), []
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(11, 8).double()

    def read(self, ids_BT: Tensor, mask_BT: Tensor | None = None, cached: bool = True, **options) -> Tensor:
        forward = type(self.decoder).forward

        def recording(x: Tensor, *args, **kwargs) -> Tensor:
            self.calls.append(tuple(x.shape[:2]))
            return forward(self.decoder, x, *args, **kwargs)

        self.decoder.forward = recording
        cache = self.decoder.make_cache(len(ids_BT)) if cached else None
        return read(self.embedding, self.decoder, ids_BT, mask_BT, cache, **options)


def padded(side: str) -> tuple[Tensor, Tensor]:
    ids_BT = torch.randint(11, (3, 13), generator=torch.Generator().manual_seed(1))
    columns = torch.arange(13).expand(3, 13)
    lengths = torch.tensor(LENGTHS)[:, None]
    return ids_BT, columns < lengths if side == "right" else columns >= 13 - lengths


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("keep", [0, 1, 7])
def test_chunks_give_what_one_call_gives(side: str, keep: int) -> None:
    ids_BT, mask_BT = padded(side)
    given = Recorder()
    with torch.no_grad():
        whole = given.read(ids_BT, mask_BT, cached=False, chunk=1 << 20)
        given.calls.clear()
        found = given.read(ids_BT, mask_BT, keep=keep, chunk=6)
    torch.testing.assert_close(found, whole[:, -keep:], atol=1e-10, rtol=0)
    assert given.calls == [(3, 2)] * 6 + [(3, 1)], "six tokens at a time in three rows"


def test_what_gradients_are_wanted_of_is_read_at_once() -> None:
    given = Recorder()
    given.read(padded("left")[0], chunk=6)
    assert given.calls == [(3, 13)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_layers_put_out_for_padded_rows_what_they_do_for_each_alone(side: str) -> None:
    ids_BT, mask_BT = padded(side)
    given, streams = Recorder(), []
    with torch.no_grad():
        given.read(ids_BT, mask_BT, cached=False, streams=streams, chunk=1 << 20)
        for row, length in enumerate(LENGTHS):
            alone: list[Tensor] = []
            given.read(ids_BT[row : row + 1, mask_BT[row]], cached=False, streams=alone, chunk=1 << 20)
            for stream, expected in zip(streams, alone, strict=True):
                if stream.shape[1] == 13:  # of the tokens, where they are
                    torch.testing.assert_close(stream[row, mask_BT[row]], expected[0], atol=1e-10, rtol=0)
                    if stream is not streams[0]:
                        assert not stream[row, ~mask_BT[row]].any()
                else:  # of units, from the left
                    assert expected.shape[1] == length // 4
                    torch.testing.assert_close(stream[row, : length // 4], expected[0], atol=1e-10, rtol=0)
                    assert not stream[row, length // 4 :].any()


def test_one_layer_that_reads_everything_makes_chunks_short() -> None:
    assert chunk_of(small("1@1:window8 2@4:fovea4,groups=4,scales=2 1@1:window8")) == CHUNK_LOCAL
    assert chunk_of(small("0@1 2@4:window8 0@1")) == CHUNK_LOCAL, "where no layer is, nothing is read"
    assert chunk_of(small("1@1:window8 2@4 1@1:window8")) == CHUNK_FULL


@pytest.mark.parametrize("outside", [11, 12, -1])
def test_an_id_outside_the_vocabulary_is_named(outside: int) -> None:
    with pytest.raises(FoveateError, match=f"token id {outside} is outside the vocabulary of 11 ids"):
        embed(torch.nn.Embedding(11, 8), torch.tensor([[3, outside, 10, 0]]))
