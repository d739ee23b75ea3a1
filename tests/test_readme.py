"""What the README shows is what happens."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from foveate.cli import main
from foveate.presets import resolve_walk

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_the_one_that_is_printed(capsys) -> None:
    command = re.search(r'\$ foveate info --walk "([^"]+)"', README)
    assert main(["info", "--walk", command[1]]) == 0
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert printed in README


def test_the_python_example_runs() -> None:
    example = re.search(r"```python\n(.+?)```", README, re.S)[1]
    names: dict = {}
    exec(example, names)
    assert names["more"].shape == (1, names["text"].shape[1] + 20)
    assert all(parameter.grad is not None for parameter in names["model"].parameters())


@pytest.mark.parametrize("row", re.findall(r"^\| [^|`]+\| (`.+`) \| (`\S+`) \|$", README, re.M))
def test_presets_are_the_walks_they_stand_beside(row) -> None:
    walks, preset = row
    assert resolve_walk(preset.strip("`")) in walks


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_paths_and_links_exist(page) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    paths = re.findall(r"`((?:src|tests)/[\w/.]+)`", text)
    for path in links + [path for path in paths if "NAME" not in path]:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", [
    "foveate.spec:HierarchySpec", "foveate.spec:Run", "foveate.spec:Pool", "foveate.spec:Expand",
    "foveate.model.clock:Units", "foveate.model.clock:Clock", "foveate.data.prompt:encode_prompt",
    "foveate.hf.stream:stream",
    "foveate.hf.modeling_foveate:FoveateForCausalLM.forward", "foveate.model.lm:read",
    "foveate.model.decoder:Decoder.forward",
    "foveate.model.layers:Stack.forward", "foveate.model.buffer:Buffer", "foveate.backends:attend",
    "foveate.model.resample:Downsample.forward", "foveate.model.resample:Upsample.forward",
    "foveate.model.local:LocalAttention", "foveate.model.attention:Heads", "foveate.spec.kinds:KINDS",
])  # fmt: skip
def test_the_guided_tour_names_what_exists(name) -> None:
    module, _, attributes = name.partition(":")
    value = import_module(module)
    for attribute in attributes.split("."):
        value = getattr(value, attribute)
    assert f"`{attributes}`" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
