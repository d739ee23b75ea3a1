"""Inputs that fuzzing found: each ended in a traceback, in a line of many thousand characters, or in all memory."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from foveate import FoveateConfig
from foveate.cost import Load
from foveate.errors import FoveateError
from foveate.limits import check_counts
from foveate.loading import model_folder
from foveate.loading.manifest import DIGEST, MANIFEST, find_damage
from foveate.presets import resolve_walk
from foveate.probes.plan import ShufflePlan
from foveate.probes.rare_words import probe_rare
from foveate.probes.sequences import split_at
from foveate.shape import config_values, read_levels
from foveate.spec import Fovea, HierarchySpec, Run
from foveate.values import count
from fuzz.targets import _sealed

SMALL = {"walk": "1@1 1@2 0@1", "vocab_size": 257, "hidden_size": 4, "num_attention_heads": 1}


@pytest.mark.parametrize(
    "values",
    [
        {"text_config": "1@1"},
        {"decoder": {}},
        {"per_layer_config": {"0": {"a": 1}}},
        {"quantization_config": "x"},
        {"attn_implementation": "1@1"},
        {"experts_implementation": 3},
        {"to_dict": 3},
        {"spec": 3},
        {"__class__": 3},
        {"attribute_map": {"a": "a"}},
        {"dtype": "load"},
        {"dtype": [1]},
        {"dtype": "evil"},
        {"torch_dtype": {}},
        {"id2label": {"a": "b"}},
        {"num_labels": "x"},
        {"layer_types": ["x"]},
        {"architectures": 3},
        {"is_encoder_decoder": True},
        {"levels": [1]},
        {"levels": {"2": 3}},
        {"eos_token_id": [10**30]},
        {"rope_theta": 10**400},
        {"use_cache": "yes"},
    ],
)
def test_configurations(values) -> None:
    with pytest.raises(FoveateError) as error:
        FoveateConfig(**{**SMALL, **values})
    assert "\n" not in str(error.value)


def test_a_configuration_keeps_what_other_tools_write() -> None:
    config = FoveateConfig(**SMALL, num_labels=3, dtype="bfloat16", tokenizer_class="X", _heterogeneity_spec=3)
    assert (config.num_labels, str(config.dtype), config.tokenizer_class) == (3, "torch.bfloat16", "X")
    assert FoveateConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: count("0@1 " * 300),
        lambda: resolve_walk("x" * 5000),
        lambda: resolve_walk("hourglass:12@1" + "/4" * 3000),
        lambda: read_levels(["4:" + "x" * 5000]),
        lambda: Load(context=1, vocab_size=["x" * 5000]),  # type: ignore[arg-type]
        lambda: Fovea(scales=3),  # type: ignore[arg-type]
        lambda: Run(stride=1, layers=1, attention="fovea"),  # type: ignore[arg-type]
        lambda: HierarchySpec.from_json({"walk": 3, "levels": [], "pooling": [], "expanding": {}}),
        lambda: check_counts({"\n": float("inf")}, Path("config.json")),
        lambda: ShufflePlan(seed=-1),
        lambda: ShufflePlan(permutations=1 << 40),
        lambda: probe_rare(None, None, [], [], seed=-1),  # type: ignore[arg-type]
        lambda: split_at([], "a{99999999999}"),
        lambda: split_at([], "(" * 5000),
    ],
)
def test_arguments(refuse) -> None:
    with pytest.raises((FoveateError, argparse.ArgumentTypeError)) as error:
        refuse()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_hidden_size_that_no_heads_divide_is_not_counted_through() -> None:
    class Args:
        walk, hidden, heads, kv_heads, ff = "1@1", 999_999_999_989, None, None, None
        levels, pooling, expanding = None, "linear", "linear"

    with pytest.raises(FoveateError, match="--hidden is 999999999989; it must be from 1"):
        config_values(Args)


@pytest.mark.parametrize(
    "manifest",
    [
        b"[" * 5000,
        b'{"files": ' + b"[" * 900 + b"]" * 900 + b"}",
        _sealed({}),
        _sealed({"files": []}),
        _sealed({"files": {"config.json": 3}}),
        _sealed({"files": {"config.json": {"size": "3", DIGEST: ""}}}),
        _sealed({"files": {"config.json": {"size": 3}}}),
    ],
)
def test_manifests(tmp_path, manifest) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / MANIFEST).write_bytes(manifest)
    assert find_damage(tmp_path) == f"{MANIFEST} is damaged"
    with pytest.raises(FoveateError, match=r"manifest\.json is damaged"):
        model_folder(tmp_path)
