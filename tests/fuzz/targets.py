"""What is fuzzed: the inputs of each target, and what is done with one of them."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import lzma
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import torch
import zstandard
from hypothesis import strategies as st

from foveate import FoveateConfig, FoveateForCausalLM, HierarchySpec, load
from foveate.cost import Load, predict
from foveate.data.split import split_documents
from foveate.data.tokenizer import load_tokenizer, make_tokenizer
from foveate.errors import FoveateError
from foveate.loading import _read_config, model_folder
from foveate.loading.manifest import DIGEST, MANIFEST, write_manifest
from foveate.loading.weights import check_weights
from foveate.presets import resolve_walk
from foveate.shape import read_levels, spec_from_config
from foveate.spec import Attention, parse_walk
from foveate.train.checkpoint import Checkpoints
from foveate.values import count, length
from fuzz import junk
from fuzz.harness import Target, accepts, quiet
from fuzz.probes import probe

WALK_PIECES = (
    *"0123456789@:,=/ -.x",
    *("1@1", "2@1 8@4 2@1", "0@1", "4@4", "2@16", " ", "window", "window128", "fovea", "fovea64", "full", "groups="),
    *("scales=", "4/16", "tail=", "keep", "log", "99999999999", "65536", "65537", "hourglass", "retina:12@1/4"),
    *("top_down", "bottom_up:30", "vanilla", "\n", "\t", "٢", "é", "\0", "width=", "heads=", "4:", "k", "1_0"),
)


def walk(folder: Path) -> Target:
    """Everything that users write as text: walks, presets, attention, levels, numbers."""
    pieces = st.lists(st.sampled_from(WALK_PIECES), max_size=12).map("".join)
    strides = st.sampled_from([1, 1, 4, 4, 4, 16, 16, 64, 3, 65_536])
    layers = st.sampled_from([0, 1, 2, 2, 8, 1001])
    runs = st.tuples(layers, strides, st.sampled_from(["", "", "", ":full", ":fovea"]) | pieces)
    walks = st.lists(runs.map(lambda run: f"{run[0]}@{run[1]}{run[2]}"), max_size=6).map(" ".join)
    whole = st.tuples(walks, st.sampled_from(["", "", ":fovea", ":window3"])).map(
        lambda drawn: "1@1{1} {0} 0@1".format(*drawn)
    )
    many = st.tuples(walks, st.sampled_from([2, 30, 400])).map(lambda drawn: f"{drawn[0]} " * drawn[1])

    def read(text: str) -> None:
        runs = parse_walk(text)
        assert parse_walk(" ".join(map(str, runs))) == runs
        spec = HierarchySpec.parse(text, width=64)
        assert HierarchySpec.parse(str(spec), width=64) == spec

    def number(reader: Callable[[str], int], text: str) -> None:
        try:
            assert reader(text) >= 1
        except argparse.ArgumentTypeError as error:
            raise FoveateError(str(error)) from None

    def check(text: str) -> bool:
        for action in (resolve_walk, Attention.parse, lambda text: read_levels([text])):
            accepts(lambda action=action: action(text))  # type: ignore[misc]
        accepts(lambda: number(count, text))
        accepts(lambda: number(length, text))
        return accepts(lambda: read(text))

    def vary(text: str, chance: Random) -> str:
        at = chance.randrange(len(text) + 1)
        change = chance.choice([*WALK_PIECES, text[at - 1 : at], str(chance.randrange(2000))])
        return text[:at] + change + text[at + chance.randrange(3) :]

    return Target(cases=st.one_of(pieces, walks, whole, many, st.text(max_size=30)), check=check, vary=vary)


KEYS = (
    *(field.name for field in fields(FoveateConfig)),
    *("model_type", "torch_dtype", "num_labels", "layer_types", "output_attentions", "attn_implementation", "auto_map"),
    *("rope_scaling", "rope_parameters", "per_layer_config", "quantization_config", "transformers_weights", "spec"),
    *("to_dict", "__class__", "__dict__", "_heterogeneity_spec", "attribute_map", "name_or_path", "text_config"),
)
SMALL = {"walk": "1@1 1@2 0@1", "vocab_size": 257, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
WALKS = ("1@1", "999999999@1", "1@1 1@1000000000 1@1", "1000@1", "2@1:window8", "1@1:fovea", "1@1 1@2 " * 40)
LEVELS = st.dictionaries(
    st.sampled_from(["1", "2", "4", "-1", "x", "02", ""]),
    st.dictionaries(st.sampled_from(["width", "heads", "kv_heads", "ff"]), junk.scalars, max_size=4) | junk.values,
    max_size=3,
)


def config(folder: Path) -> Target:
    """A ``config.json``, through every door it can come in by."""
    quiet()
    settings = st.dictionaries(
        st.sampled_from(KEYS) | st.sampled_from(dir(FoveateConfig)) | st.text(max_size=6),
        junk.values | st.sampled_from(WALKS) | LEVELS,
        max_size=4,
    )
    cases = st.tuples(settings, st.booleans(), st.booleans())

    def check(case: tuple[dict[str, Any], bool, bool]) -> bool:
        changes, from_nothing, build = case
        given = {"model_type": "foveate"} | ({} if from_nothing else SMALL) | changes
        accepts(lambda: HierarchySpec.from_json(given))
        accepts(lambda: predict(spec_from_config(given), Load(context=1024, vocab_size=given.get("vocab_size", 9))))
        accepted = accepts(lambda: FoveateConfig(**given))
        file = folder / "config.json"
        file.write_bytes(junk.as_json(given))
        accepts(lambda: spec_from_config(json.loads(file.read_bytes())))
        if build and given["model_type"] == "foveate" and _nests_little(file):
            accepts(lambda: _build_from(folder))
        return accepted

    def vary(case: tuple[dict[str, Any], bool, bool], chance: Random) -> Any:
        changes, from_nothing, build = case
        added = {chance.choice(KEYS): chance.choice((*junk.SIMPLE, *WALKS)), **changes}
        varied = junk.damage_json(added, junk.random_json_edits(chance))
        return (varied if isinstance(varied, dict) else added), from_nothing, build and chance.random() < 0.3

    return Target(cases=cases, check=check, vary=vary)


def _nests_little(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_bytes()), dict)
    except RecursionError:
        return False


def _build_from(folder: Path) -> None:
    config = _read_config(folder)
    if len(config.spec.steps) <= 8:
        with torch.device("meta"):
            FoveateForCausalLM(config)


DOCUMENTS = ("It was a dark and stormy night.\r\n", "näïve “quotes” 日本\n\n", "x" * 300, "\ufeffmark")
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": gzip.compress,
    ".xz": lambda raw: lzma.compress(raw, preset=0),
    ".zst": lambda raw: zstandard.compress(raw),
}


def corpus(folder: Path) -> Target:
    """Text files and JSON lines, plain and compressed: damaged before or after they are compressed."""
    lines = "\n".join(json.dumps({"text": text, "n": i}) for i, text in enumerate(DOCUMENTS)).encode()
    plain = {".txt": "".join(DOCUMENTS).encode(), ".jsonl": lines}
    junk_lines = st.lists(junk.values | st.fixed_dictionaries({"text": junk.values}), max_size=4).map(
        lambda rows: b"\n".join(map(junk.as_json, rows))
    )
    cases = st.tuples(
        st.sampled_from(sorted(plain)),
        st.sampled_from(sorted(PACK)),
        st.none() | st.binary(max_size=60) | junk_lines,
        st.just([]) | junk.byte_edits,
        st.just([]) | junk.byte_edits,
        st.sampled_from(["all", "all", "train", "valid"]),
    )

    def check(case: Any) -> bool:
        kind, packing, instead, before, after, split = case
        raw = junk.damage_bytes(plain[kind] if instead is None else instead, before)
        file = folder / f"text{kind}{packing}"
        file.write_bytes(junk.damage_bytes(PACK[packing](raw), after))

        def read() -> None:
            for text in split_documents([str(file)], split=split, valid_fraction=0.5):
                assert text
                text.encode("utf-8")

        return accepts(read)

    def vary(case: Any, chance: Random) -> Any:
        kind, _, instead, before, after, split = case
        edits = junk.random_byte_edits(chance)
        before, after = (before, edits) if chance.random() < 0.5 else (edits, after)
        return kind, chance.choice(list(PACK)), instead, before, after, split

    return Target(cases=cases, check=check, vary=vary)


def checkpoint(folder: Path) -> Target:
    """A run's folder with one file damaged: by bytes, by its JSON, cut, emptied, or another file in its place.

    A whole load takes too long to be done a hundred thousand times: each case goes through the stage that reads the
    damaged file, one in ``WHOLE_LOADS`` through all of them.
    """
    quiet()
    torch.manual_seed(0)
    model = folder / "model"
    FoveateForCausalLM(FoveateConfig(**SMALL)).save_pretrained(model)  # type: ignore[arg-type]
    make_tokenizer("bytes", list).save_pretrained(model)
    write_manifest(model, {"step": 5})
    # but the code that other programs load the model by: nothing here reads it
    whole = {path.name: path.read_bytes() for path in model.iterdir() if path.suffix != ".py"}
    cases = st.tuples(
        st.sampled_from(sorted(whole)),
        st.one_of(
            _damage("bytes", junk.byte_edits),
            _damage("json", junk.json_edits),
            _damage("json", junk.json_edits),
            _damage("other", st.sampled_from(sorted(whole))),
            _damage("instead", st.binary(max_size=40)),
            _damage("gone", st.none()),
        ),
        st.sampled_from(["kept", "none", "new"]),
        st.integers(0, WHOLE_LOADS - 1),
    )

    def check(case: Any) -> bool:
        name, (kind, how), manifest, lot = case
        if kind == "gone":
            (model / name).unlink()
        else:
            (model / name).write_bytes(_damaged(whole, name, kind, how))
        if name != MANIFEST and manifest != "kept":
            (model / MANIFEST).unlink()
            if manifest == "new":
                write_manifest(model, {"step": 5})
        try:
            return accepts(lambda: load(model, device="cpu") if lot == 0 else _stage(model, name))
        finally:
            for file in (name, MANIFEST):
                (model / file).write_bytes(whole[file])

    def vary(case: Any, chance: Random) -> Any:
        name, (kind, how), manifest, _ = case
        if chance.random() < 0.5:
            name = chance.choice(sorted(whole))
        kind = chance.choice(["bytes", "json"])
        how = junk.random_byte_edits(chance) if kind == "bytes" else junk.random_json_edits(chance)
        return name, (kind, how), manifest, chance.randrange(WHOLE_LOADS)

    return Target(cases=cases, check=check, vary=vary)


WHOLE_LOADS = 100


def _damage(kind: str, how: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.just(kind), how)


def _damaged(whole: dict[str, bytes], name: str, kind: str, how: Any) -> bytes:
    raw = whole[name]
    if kind == "bytes":
        return junk.damage_bytes(raw, how)
    if kind == "other":
        return whole[how]
    if kind == "instead":
        return how
    if name == MANIFEST:
        return _sealed(junk.damage_json(json.loads(raw), how))
    if not name.endswith(".safetensors"):
        return junk.as_json(junk.damage_json(json.loads(raw), how))
    end = 8 + int.from_bytes(raw[:8], "little")
    header = junk.as_json(junk.damage_json(json.loads(raw[8:end]), how))
    return len(header).to_bytes(8, "little") + header + raw[end:]


def _sealed(tree: Any) -> bytes:
    """A manifest that someone has changed and signed again."""
    if isinstance(tree, dict):
        tree.pop(DIGEST, None)
        with contextlib.suppress(RecursionError):
            tree[DIGEST] = hashlib.blake2b(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    return junk.as_json(tree)


def _stage(model: Path, name: str) -> None:
    if name == MANIFEST:
        run = model.parent
        place = run / "checkpoint-5"
        if not place.is_symlink():
            place.symlink_to(model.name)
        accepts(lambda: model_folder(run))
        accepts(lambda: Checkpoints(run).newest_whole())
    model_folder(model)
    if name.startswith("model."):
        check_weights(model)
    elif name.startswith("tokenizer"):
        load_tokenizer(model)
    elif name.endswith(".json"):
        _read_config(model)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "walk": walk,
    "config": config,
    "corpus": corpus,
    "checkpoint": checkpoint,
    "probe": probe,
}
