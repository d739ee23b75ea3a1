"""What hostile and unlucky files hold: values that no one wrote on purpose, and damage to bytes and to JSON."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

from hypothesis import strategies as st

NUMBERS = (
    -1,
    0,
    1,
    2,
    3,
    7,
    64,
    255,
    1000,
    65_536,
    65_537,
    2**31,
    2**32,
    10**9,
    10**12,
    2**63,
    2**64,
    10**30,
    -(10**12),
)
ODD = (
    None,
    True,
    False,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "1",
    "-1",
    "1e3",
    "\ud800",
    "\0",
    "../..",
    [],
    {},
)

BYTES = (b"\0", b"\xff", b"\n", b"{", b'"', b"\xed\xa0\x80", b"9" * 20)
SIMPLE = (*NUMBERS, *ODD, "x" * 500, [[]], [None], {"": 0}, ["1"], {"1": {"width": 4}})

scalars = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(ODD), st.integers(), st.floats(), st.text(max_size=12), st.just("x" * 500)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


def _edit(kind: str, *drawn: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(kind), *drawn)


place = st.integers(0, 1 << 16)  # modulo what there is
byte_edits = st.lists(
    st.one_of(
        _edit("flip", place, st.integers(0, 7)),
        _edit(
            "put",
            place,
            st.sampled_from([b"\0", b"\xff", b"\n", b"{", b'"', b"\xed\xa0\x80", b"\xef\xbb\xbf", b"9" * 20]),
        ),
        _edit("insert", place, st.binary(max_size=9)),
        _edit("remove", place, st.integers(1, 300)),
        _edit("repeat", place, st.integers(1, 300)),
        _edit("cut", place),
    ),
    min_size=1,
    max_size=4,
)
json_edits = st.lists(
    st.one_of(
        _edit("set", place, values),
        _edit("add", place, st.text(max_size=8), values),
        _edit("delete", place),
        _edit("nest", place, st.sampled_from([2, 70, 2000])),
    ),
    min_size=1,
    max_size=3,
)


def random_byte_edits(chance: Random) -> list[tuple[Any, ...]]:
    """As ``byte_edits``, drawn at a hundredth of the cost."""
    kinds = {
        "flip": lambda: chance.randrange(8),
        "put": lambda: chance.choice(BYTES),
        "insert": lambda: chance.randbytes(chance.randrange(9)),
        "remove": lambda: chance.randrange(1, 300),
        "repeat": lambda: chance.randrange(1, 300),
        "cut": lambda: None,
    }
    chosen = chance.choices(list(kinds), k=chance.randrange(1, 4))
    return [(kind, chance.randrange(1 << 16), kinds[kind]()) for kind in chosen]


def random_json_edits(chance: Random) -> list[tuple[Any, ...]]:
    """As ``json_edits``, drawn at a hundredth of the cost."""
    return [
        ("delete", chance.randrange(1 << 16)) if chance.random() < 0.2 else ("set", chance.randrange(1 << 16), value)
        for value in chance.choices(SIMPLE, k=chance.randrange(1, 3))
    ]


def damage_bytes(raw: bytes, edits: list[tuple[Any, ...]]) -> bytes:
    for kind, at, *more in edits:
        at %= len(raw) + 1
        if kind == "flip" and at < len(raw):
            raw = raw[:at] + bytes([raw[at] ^ 1 << more[0]]) + raw[at + 1 :]
        elif kind == "put":
            raw = raw[:at] + more[0] + raw[at + len(more[0]) :]
        elif kind == "insert":
            raw = raw[:at] + more[0] + raw[at:]
        elif kind == "remove":
            raw = raw[:at] + raw[at + more[0] :]
        elif kind == "repeat":
            raw = raw[: at + more[0]] + raw[at:]
        elif kind == "cut":
            raw = raw[:at]
    return raw


def damage_json(tree: Any, edits: list[tuple[Any, ...]]) -> Any:
    """A copy of ``tree`` in which the places that ``edits`` number are changed."""
    root = [copy.deepcopy(tree)]
    for kind, at, *more in edits:
        places = list(_places(root))
        holder, key = places[at % len(places)]
        if kind == "set":
            holder[key] = copy.deepcopy(more[0])
        elif kind == "nest":
            for _ in range(more[0]):
                holder[key] = [holder[key]]
        elif kind == "add" and isinstance(holder[key], dict):
            holder[key] = {**holder[key], more[0]: copy.deepcopy(more[1])}
        elif kind == "delete" and isinstance(holder, dict):
            del holder[key]
    return root[0]


def _places(node: Any) -> Any:
    left = [node]
    while left:
        holder = left.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], dict | list):
                left.append(holder[key])


def as_json(tree: Any) -> bytes:
    """As Python writes JSON, half surrogates and all; what nests too deep for that is written by hand."""
    depth = 0
    while isinstance(tree, list) and len(tree) == 1:
        tree, depth = tree[0], depth + 1
    try:
        text = json.dumps(tree)
    except RecursionError:
        text = "[" * 5000
    return ("[" * depth + text + "]" * depth).encode()
