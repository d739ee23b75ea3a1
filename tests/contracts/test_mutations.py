"""The contract notices when it is broken: one edit to the core at a time, and a check that must then fail."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from contracts.checks import check_calls, check_causal, check_oracle, check_remove_last, make_decoder
from contracts.walks import small
from foveate.model.attention import FullAttention, WindowAttention
from foveate.model.clock import Span
from foveate.model.decoder import Decoder
from foveate.model.resample import Expand, Lookup, Pool
from foveate.model.tape import Tape

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


MUTATIONS = [
    Mutation("a unit shown one position early", Expand, "_align_even", "% k + 1", "% k + 2", causal),
    Mutation("a unit shown one position early", Expand, "_align_even", "% k + 1", "% k + 2", causal, "repeat"),
    Mutation("a unit shown one position late", Expand, "_align_even", "% k + 1", "% k", oracle),
    Mutation("a unit shown one position early, rows apart", Expand, "_align_ragged", "+ 1\n", "+ 2\n", ragged_at_once),
    Mutation("a unit looked up one position early", Lookup, "forward", "+ 1) // k", "+ 2) // k", causal, "attention"),
    Mutation("no unit carried between calls", Expand, "_align_even", "if coarse.start:", "if False:", split),
    Mutation("no unit carried, rows apart", Expand, "_align_ragged", "if tape is not None", "if False", ragged),
    Mutation("an unfinished group reversed", Pool, "_group", "unfinished)[0]", "unfinished)[0].flip(1)", split),
    Mutation("groups follow the columns of a call", Pool, "_group", "[row] + before", "[row] * 0 + before", ragged),
    Mutation("keys before this call forgotten", FullAttention, "forward", "or span.fresh", "or True", split),
    Mutation("the next key seen", FullAttention, "prepare", "<= span.positions", "<= 1 + span.positions", split),
    Mutation("a window one unit wider", WindowAttention, "_blocked", "(columns > rows", "(columns >= rows", oracle),
    Mutation("all slots of a larger ring seen", WindowAttention, "_slots_in_window", "- self.window", "- 99", removed),
    Mutation(
        "a ring written one slot off", Tape, "_write_even", "slot = start % ring", "slot = (start + 1) % ring", split
    ),
    Mutation("rows share the slots of the first", Span, "slots", "start[row] + column", "start[0] + column", ragged),
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
