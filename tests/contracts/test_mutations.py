"""The contract notices when it is broken: one edit to the core at a time, and a check that must then fail."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from contracts.checks import (
    check_calls,
    check_causal,
    check_gradients,
    check_oracle,
    check_packed,
    check_remove_last,
    make_decoder,
)
from contracts.walks import small
from foveate.model.attention import FullAttention
from foveate.model.buffer import Buffer
from foveate.model.decoder import Decoder
from foveate.model.documents import Documents
from foveate.model.local import LocalAttention
from foveate.model.resample import Downsample, Lookup, Upsample

SPLIT = [[6, 6], [1, 1], [7, 7]]
RAGGED = [[6, 1, 3], [1, 5, 4], [7, 0, 4]]


@dataclass(frozen=True)
class Mutation:
    what: str
    owner: type
    function: str
    old: str
    new: str
    check: Callable[[Decoder], object]
    expanding: str = "linear"


def causal(decoder: Decoder) -> None:
    check_causal(decoder, 14)


def oracle(decoder: Decoder) -> None:
    check_oracle(decoder, [14])


def split(decoder: Decoder) -> None:
    check_calls(decoder, SPLIT)


def ragged(decoder: Decoder) -> None:
    check_calls(decoder, RAGGED)


def ragged_at_once(decoder: Decoder) -> None:
    check_calls(decoder, [[14, 6, 11]], cached=False)


def removed(decoder: Decoder) -> None:
    check_remove_last(decoder, [9, 9], [(7, 5), (1, 0), (6, 4), (2, 0)])


def gradients(decoder: Decoder) -> None:
    check_gradients(decoder, SPLIT)


def packed(decoder: Decoder) -> None:
    check_packed(decoder, [[5, 1, 8], [14]])


MUTATIONS = [
    Mutation("a unit shown one position early", Upsample, "_shown", "% k + 1  #", "% k + 2  #", causal),
    Mutation("a unit shown one position early", Upsample, "_shown", "% k + 1  #", "% k + 2  #", causal, "repeat"),
    Mutation("a unit shown one position late", Upsample, "_shown", "% k + 1  #", "% k  #", oracle),
    Mutation("a unit shown one position early, rows apart", Upsample, "_shown", "(device) + 1", "(device) + 2", ragged),
    Mutation("a unit looked up one position early", Lookup, "_visible", "+ 1) // k", "+ 2) // k", causal, "attention"),
    Mutation("no unit carried between calls", Upsample, "_last", "or before.fresh", "or True", split),
    Mutation("an unfinished group reversed", Downsample, "_group", "unfinished)[0]", "unfinished)[0].flip(1)", split),
    Mutation("groups follow the columns of a call", Downsample, "_group", "[row_Q] + k", "[row_Q] * 0 + k", ragged),
    Mutation("keys before this call forgotten", FullAttention, "forward", "or units.fresh", "or True", split),
    Mutation("the next key seen", FullAttention, "prepare", "<= units.positions", "<= 1 + units.positions", split),
    Mutation("a window one unit wider", LocalAttention, "_near", "(column > row)", "(column >= row)", oracle),
    Mutation("all slots of a larger ring seen", LocalAttention, "_visible_slots", "- self.window", "- 99", removed),
    Mutation("a ring written one slot off", Buffer, "_ranges", "slots.of(start + column)", "slots.of(start)", split),
    Mutation(
        "rows share the slots of the first",
        Buffer,
        "_place",
        "units.positions(device)).r",
        "units.positions(device)[:1] + units.positions(device) * 0).r",
        ragged,
    ),
    Mutation("what is written leaves the graph", Buffer, "_written", "new.to(buffer.dtype)", "new.detach()", gradients),
    Mutation("documents share groups", Documents, "members", "number * k)", "(number - (number > 0)) * k)", packed),
    Mutation(
        "a document sees the one before",
        Documents,
        "of_like_length",
        "self.first[chosen])",
        "0 * self.first[chosen])",
        packed,
    ),
    Mutation(
        "a document is shown the unit before",
        Documents,
        "shown",
        "np.where(complete > 0,",
        "np.where(complete >= 0,",
        packed,
    ),
]


def mutate(monkeypatch: pytest.MonkeyPatch, owner: type, function: str, old: str, new: str) -> None:
    original = getattr(owner, function)
    source = textwrap.dedent(inspect.getsource(original))
    assert source.count(old) == 1, f"{owner.__name__}.{function} has changed: mutate something else than {old!r}"
    namespace = dict(original.__globals__)
    exec(source.replace(old, new), namespace)
    monkeypatch.setattr(owner, function, namespace[function])


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.what}, {m.expanding}, {m.check.__name__}")
def test_broken_core_is_noticed(monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    decoder = make_decoder(small("1@1:window3 1@4 1@1", pooling="linear", expanding=mutation.expanding))
    mutation.check(decoder)
    mutate(monkeypatch, mutation.owner, mutation.function, mutation.old, mutation.new)
    with pytest.raises(AssertionError):
        mutation.check(decoder)
