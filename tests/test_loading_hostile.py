"""Folders made to do harm: to run code through a pickle, or to take all memory. They are refused before they can."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import re
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

import foveate
from foveate import FoveateConfig, FoveateForCausalLM, load
from foveate.cli import main
from foveate.data.tokenizer import load_tokenizer, make_tokenizer
from foveate.errors import FoveateError

SOON = 5.0  # seconds of processor time, of a machine however busy; building such a model would take memory or hours
WALK = "1@1 1@2 0@1"
SMALL = {"vocab_size": 257, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
MODELS = {
    "foveate": lambda: FoveateForCausalLM(FoveateConfig(walk=WALK, **SMALL)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, max_position_embeddings=32, **SMALL)),
}


class Harm:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(params=MODELS)
def folder(request, tmp_path) -> Path:
    folder = tmp_path / "model"
    MODELS[request.param]().save_pretrained(folder)
    make_tokenizer("bytes", list).save_pretrained(folder)
    return folder


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@contextlib.contextmanager
def refused(match: str | None = None):
    began = time.process_time()
    with pytest.raises(FoveateError, match=match) as error:
        yield
    assert time.process_time() - began < SOON
    assert "\n" not in str(error.value)


@pytest.fixture
def no_unpickling(monkeypatch) -> None:
    """Any attempt to unpickle fails, whoever makes it."""

    def attempt(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, attempt)


PICKLES = ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "tokenizer.pkl", "rng_state.pth", "model.ckpt")


def plant_pickles(folder: Path) -> Path:
    mark = folder.parent / "harm was done"
    for name in PICKLES[:-1]:
        (folder / name).write_bytes(pickle.dumps(Harm(mark)))
    torch.save({"harm": Harm(mark)}, folder / PICKLES[-1])
    return mark


def test_the_planted_pickles_are_real(folder) -> None:
    mark = plant_pickles(folder)
    torch.load(folder / "model.ckpt", weights_only=False)
    assert mark.exists()


def test_pickles_beside_a_model_are_not_read(folder, no_unpickling) -> None:
    mark = plant_pickles(folder)
    model, tokenizer = load(folder, device="cpu")
    assert model(torch.tensor([tokenizer("ab")["input_ids"]])).logits.isfinite().all()
    assert not mark.exists()


def test_pickled_weights_are_refused(folder, no_unpickling) -> None:
    mark = plant_pickles(folder)
    (folder / "model.safetensors").unlink()
    with refused("has its weights pickled, in pytorch_model.bin"):
        load(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"])
def test_a_pickle_under_another_name_is_refused(folder, name, no_unpickling) -> None:
    mark = plant_pickles(folder)
    (folder / "pytorch_model.bin").rename(folder / name)
    with pytest.raises(FoveateError):
        load(folder, device="cpu")
    assert not mark.exists()


def index_of_pickles(folder: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "pytorch_model.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def index_of_nothing(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": 3}}))


def index_of_the_folder(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": ""}}))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (index_of_pickles, "names 'pytorch_model.bin', which is no safetensors file"),
        (index_of_nothing, "names 3, which is no safetensors file"),
        (index_of_the_folder, "names '', which is no safetensors file"),
        (
            lambda folder: edit(folder / "config.json", transformers_weights="adapter_model.bin"),
            "sets transformers_weig",
        ),
        (
            lambda folder: edit(folder / "config.json", attn_implementation="evil/kernel"),
            "which is code from elsewhere",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds an adapter"),
        (
            lambda folder: (folder / "shard-00001-model-00001-of-00002.safetensors").touch(),
            "parts of several processes",
        ),
    ],
)
def test_ways_around_the_weights_are_closed(folder, change, line, no_unpickling) -> None:
    plant_pickles(folder)
    change(folder)
    with refused(line):
        load(folder)


def test_the_source_unpickles_nothing_and_trusts_no_code() -> None:
    found = []
    for path in Path(foveate.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found += [f"{path.name}:{node.lineno} {name}" for name in forbidden(node)]
    assert found == []


def forbidden(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
        return [name for name in names if name.split(".")[0] in ("pickle", "dill", "cloudpickle", "shelve", "marshal")]
    if not isinstance(node, ast.Call):
        return []
    called = ast.unparse(node.func)
    wrong = [called] if called in ("torch.load", "yaml.load", "yaml.unsafe_load", "eval", "exec") else []
    for keyword in node.keywords:
        unsafe = keyword.arg in ("trust_remote_code", "allow_pickle", "allow_all_kernels")
        if unsafe and ast.unparse(keyword.value) != "False":
            wrong.append(ast.unparse(keyword))
    return wrong


def test_what_is_forbidden_is_seen() -> None:
    code = "import pickle\nfrom dill import loads\ntorch.load(p)\nf(trust_remote_code=True)\nnp.load(p, allow_pickle=x)"
    assert sum(len(forbidden(node)) for node in ast.walk(ast.parse(code))) == 5


HUGE = {
    "layers": {"walk": "999999999@1"},
    "stride": {"walk": "1@1 1@1000000000 1@1"},
    "runs": {"walk": "0@1 0@4 " * 5000 + "1@1"},
    "characters": {"walk": "1@1 " * 10**6},
    "width": {"hidden_size": 10**12},
    "parameters": {"walk": "1000@1", "hidden_size": 1_048_576},
    "a pool's parameters": {"walk": "1@1 1@65536 1@1", "hidden_size": 65_536, "pooling": "linear"},
    "vocabulary": {"vocab_size": 10**12},
    "digits": {"vocab_size": 10**4000},
    "labels": {"num_labels": 10**10},
    "a level": {"levels": {"2": {"width": 10**9}}},
    "not a number": {"rope_theta": float("nan")},
    "no number": {"hidden_size": [[[]]] * 1000},
}


@pytest.mark.parametrize("values", HUGE.values(), ids=HUGE)
def test_a_configuration_that_asks_for_too_much(values, tmp_path) -> None:
    with refused():
        FoveateConfig(**{"walk": WALK, **SMALL, **values})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "foveate", "walk": WALK, **SMALL, **values}))
    AutoConfig.from_pretrained  # noqa: B018  # imported lazily, which takes its time
    with refused():
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "nested", ["[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, '{"model_type": "foveate", "a": ' + "9" * 5000 + "}"]
)
def test_a_configuration_that_cannot_be_read(folder, nested) -> None:
    (folder / "config.json").write_text(nested)
    with refused("config.json is not JSON"):
        load(folder)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"num_labels": 10**10}, "'num_labels' is 10000000000, more than 1,048,576"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' is 1000000000, more than"),
        ({"num_hidden_layers": 10**6}, "asks for more parameters than the 12 tensors of its weights hold"),
        ({"intermediate_size": 10**12}, "asks for more parameters than"),
        ({"vocab_size": 10**9}, "asks for more parameters than"),
        ({"architectures": [[]]}, "it must be a list of names"),
        ({"architectures": 3}, "it must be a list of names"),
        ({"model_type": []}, "it has no 'model_type'"),
    ],
)
def test_a_model_of_another_kind_that_asks_for_too_much(values, line, tmp_path) -> None:
    MODELS["llama"]().save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **values)
    with refused(line):
        load(tmp_path)
    if "num_labels" in values:
        with refused(line):
            load_tokenizer(tmp_path)


def test_a_model_larger_than_memory(folder, monkeypatch) -> None:
    monkeypatch.setattr("foveate.loading.building.free_memory", lambda: 10_000)
    with refused("takes over 0.0 GiB of memory, all that is free; choose a smaller dtype"):
        load(folder, device="cpu")


def header(entries: dict) -> bytes:
    raw = json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"", "is cut short or not safetensors"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "is cut short or not safetensors"),
        ((10_000).to_bytes(8, "little") + b"[" * 10_000, "has a damaged header"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, "4"]}}), "has a damaged header"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}), "has a damaged header"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "bytes instead of"),
        (
            header({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4]}}) + b"1234",
            "damaged header: ",
        ),
        (header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}) + b"1234", "damaged header: "),
    ],
)
def test_weights_whose_header_lies(folder, raw, line) -> None:
    (folder / "model.safetensors").write_bytes(raw)
    with refused(line):
        load(folder)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"", "is cut short or not GGUF"),
        (pickle.dumps({"a": 1}) + b"\0" * 100, "is cut short or not GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1), "is cut short or not GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + b"\xff" * 100, "cannot be loaded"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0) + b"\0" * 100, "cannot be loaded"),
    ],
)
def test_gguf_files_that_are_none(tmp_path, raw, line, no_unpickling) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    with refused(line):
        load(path)


def change_weights(folder: Path, change) -> str:
    """Change one weight of a saved model in place; gives its name."""
    tensors = load_file(folder / "model.safetensors")
    name = sorted(name for name, tensor in tensors.items() if tensor.dim() == 2)[1]
    tensors[name] = change(tensors[name].clone()).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return name


@pytest.mark.parametrize(("value", "what"), [("nan", "NaN"), ("inf", "infinite values"), ("-inf", "infinite values")])
def test_weights_that_are_no_numbers_are_named(folder, value, what, capsys) -> None:
    def put(tensor: torch.Tensor) -> torch.Tensor:
        tensor[-1, -1] = float(value)
        return tensor

    name = change_weights(folder, put)
    with refused(f"its weight {name} holds {what}"):
        load(folder)
    assert main(["sample", str(folder), "--prompt", "a"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_weight_of_another_shape_is_named_with_both(folder) -> None:
    shapes = []

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor[:-2]

    name = change_weights(folder, cut)
    rows, columns = shapes[0]
    with refused(re.escape(f"{name} has shape {(rows - 2, columns)}, where its configuration asks for {shapes[0]}")):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"])
def test_a_pipe_is_not_waited_for(folder, name) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with refused(f"{name} is no regular file"):
        load(folder)
    with refused(f"{name} is no regular file"):
        load_tokenizer(folder)
