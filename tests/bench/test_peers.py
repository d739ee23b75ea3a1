"""Other people's models have the shape that was asked for, and decode what they compute without their caches."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from foveate.bench.decode import time_decoding
from foveate.bench.peer_models import Shape, _nested
from foveate.bench.peers import PEERS, make_models
from foveate.bench.train import time_training
from foveate.cli import main
from foveate.errors import FoveateError
from foveate.spec import HierarchySpec

MODULES = {
    "x-transformers": "x_transformers",
    "hourglass-transformer": "hourglass_transformer_pytorch",
    "simple-hierarchical-transformer": "simple_hierarchical_transformer",
    "megabyte": "MEGABYTE_pytorch",
}
CHECKOUT = os.environ.get("SPACEBYTE")  # a clone of github.com/kjslag/spacebyte
HERE = [name for name in PEERS if CHECKOUT or name != "spacebyte-megabyte"]
SHAPE = {"walk": "1@1 2@4 1@1", "hidden_size": 32, "num_attention_heads": 2}
PATCHES = {
    "walk": "0@1 2@8 1@1:window8",
    "hidden_size": 16,
    "num_attention_heads": 1,
    "levels": {"8": {"width": 32, "heads": 2}},
}

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def peer(name: str):
    """Its contender, or skip where it is not installed."""
    if name == "spacebyte-megabyte":
        assert CHECKOUT
        return make_models([PATCHES], [name], vocab_size=32, positions=100, peer_path=Path(CHECKOUT))[name]
    if name in MODULES:
        pytest.importorskip(MODULES[name])
    return make_models([SHAPE], [name], vocab_size=32, positions=100)[name]


@pytest.mark.parametrize("name", HERE)
@torch.inference_mode()
def test_decoding_gives_what_one_forward_gives(name) -> None:
    given = peer(name)
    made = given.engine(given.model, 2, given.spec)
    ids = torch.randint(32, (2, 40), generator=torch.Generator().manual_seed(0))
    made.prepare(60)
    made.read(ids[:, :33])
    for _ in range(2):  # going back is exact
        state = made.fork(7)
        steps = torch.stack([made.step(ids[:, t : t + 1], state) for t in range(33, 40)], 1)
        whole = given.model(ids).logits[:, 33:]
        assert torch.allclose(steps, whole, atol=1e-4)


@pytest.mark.parametrize("name", ["x-transformers", "hourglass-transformer", "simple-hierarchical-transformer"])
@torch.inference_mode()
def test_ragged_rows_are_as_alone(name) -> None:
    given = peer(name)
    ids = torch.randint(32, (2, 21), generator=torch.Generator().manual_seed(0))
    both, alone = (given.engine(given.model, rows, given.spec) for rows in (2, 1))
    both.read(ids, np.array([0, 6]))
    alone.read(ids[1:, 6:])
    new = torch.ones((2, 1), dtype=torch.long)
    assert torch.allclose(both.step(new, both.fork(1))[1], alone.step(new[:1], alone.fork(1))[0], atol=1e-4)


@pytest.mark.parametrize("name", HERE)
def test_every_peer_is_timed(name) -> None:
    [decoded] = time_decoding({name: peer(name)}, context=17, tokens=2, repeats=1)
    assert decoded.ms_per_token > 0
    [trained] = time_training({name: peer(name)}, context=19, batch=2, steps=1)
    assert trained.train_tokens_per_s > 0


def test_the_hourglass_nests_as_the_walk_does() -> None:
    def nested(walk: str):
        spec = HierarchySpec.parse(walk, width=16, heads=2)
        shape = Shape(spec=spec, vocab_size=8, positions=8)
        return _nested(shape.runs, shape)

    assert nested("2@1 8@4 2@1") == ((2, 8, 2), (4,))
    assert nested("2@1 4@4 8@16 3@4 1@1") == ((2, (4, 8, 3), 1), (4, 4))
    with pytest.raises(FoveateError, match="goes down and up again"):
        nested("0@1 8@4 2@1")


def test_a_peer_that_is_not_installed_is_named(capsys, monkeypatch) -> None:
    for name, module in MODULES.items():
        monkeypatch.setitem(__import__("sys").modules, module, None)
        walk = "0@1 2@8 1@1" if name == "megabyte" else "1@1 2@4 1@1"
        assert main(["bench", "decode", "--walk", walk, "--hidden", "16", "--peer", name]) == 2
        assert "pip install 'foveate[peers]'" in capsys.readouterr().err


def test_a_checkout_that_is_not_there_is_asked_for(capsys) -> None:
    command = ["bench", "decode", "--walk", "0@1 2@8 1@1", "--hidden", "16", "--peer", "spacebyte-megabyte"]
    assert main(command) == 2
    assert "--peer-path" in capsys.readouterr().err
    assert main([*command, "--peer-path", "no such folder"]) == 2
    assert "git clone" in capsys.readouterr().err


def test_the_command_line_names_every_peer(capsys) -> None:
    assert main(["bench", "decode", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    assert all(name in words for name in PEERS)
    assert importlib.util.find_spec("foveate.bench.peers")
