"""What is used of transformers without its promise is where we think it is; both names of the cache are taken."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, GenerationMixin, LlamaConfig, LlamaForCausalLM

from foveate.errors import FoveateError
from foveate.hf import private
from foveate.hf.generation import FoveateGenerationMixin
from hf.models import make_ids, make_model

ROOT = Path(__file__).parents[2]
MOVED = f"transformers {transformers.__version__} has moved {{}}: see foveate/hf/private.py"


@pytest.mark.parametrize("version", ["5.20.0", "5.23.1", "5.24.9"])
def test_tested_releases_are_taken(version: str) -> None:
    private.check_version(version)


@pytest.mark.parametrize("version", ["4.57.6", "5.19.0", "5.25.0", "5.25.0.dev0", "6.0.0", "10.1"])
def test_untested_releases_are_refused_in_one_line(version: str) -> None:
    with pytest.raises(FoveateError, match=re.escape(f"transformers {version} is not one")) as caught:
        private.check_version(version)
    assert "\n" not in str(caught.value)
    assert "pip install 'transformers>=5.20,<5.25'" in str(caught.value)


def test_what_may_be_installed_is_what_is_taken() -> None:
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    low, high = (".".join(map(str, bound)) for bound in (private.OLDEST, private.TOO_NEW))
    assert f"transformers>={low},<{high}" in allowed


def test_a_release_too_new_is_named_at_import() -> None:
    code = "import transformers; transformers.__version__ = '5.99.0'; import foveate.hf.modeling_foveate"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("foveate.errors.FoveateError: transformers 5.99.0 is not one"), done.stderr


@pytest.mark.parametrize(
    "method",
    [
        "_prepare_cache_for_generation",
        "_prepare_position_ids_for_generation",
        "prepare_inputs_for_generation",
        "_valid_auto_compile_criteria",
        "generate",
        "generate_batch",
        "init_continuous_batching",
    ],
)
def test_what_is_overridden_is_there(method: str) -> None:
    assert hasattr(GenerationMixin, method), MOVED.format(f"GenerationMixin.{method}")
    assert method in vars(FoveateGenerationMixin)


def test_how_generate_hands_over_a_cache_is_known() -> None:
    names = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
    needed = {private.CACHE, "next_sequence_length", "inputs_embeds", "is_first_iteration"}
    assert needed <= names.keys(), MOVED.format("the cache's name")
    positional = list(inspect.signature(GenerationMixin._prepare_cache_for_generation).parameters)
    wanted = ["self", "generation_config", "model_kwargs", "generation_mode", "batch_size", "max_cache_length"]
    assert positional[:6] == wanted, MOVED.format("GenerationMixin._prepare_cache_for_generation")


def test_private_values_are_there() -> None:
    source = inspect.getsource(transformers.generation.utils)
    for name in ("_mask_length", "_is_user_defined"):
        assert name in source, MOVED.format(name)
    config = GenerationConfig()
    config._mask_length = 3  # type: ignore[attr-defined]
    assert private.columns_of_prompt(config) == 3
    assert hasattr(AutoModelForCausalLM, "_model_mapping"), MOVED.format("AutoModelForCausalLM._model_mapping")
    assert private.causal_models(LlamaConfig) == (LlamaForCausalLM,)
    assert private.checkpointing_argument() in inspect.signature(transformers.TrainingArguments).parameters
    assert make_model("plain").can_generate()


def test_every_private_name_is_in_contributing() -> None:
    listed = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    used = set(re.findall(r"(?:\.|def )(_[a-z]\w+)", inspect.getsource(private)))
    overridden = {name for name in vars(FoveateGenerationMixin) if re.match("_[a-z]", name)} - {"_abc_impl"}
    assert used | overridden == {name for name in used | overridden if f"`{name}`" in listed}


@pytest.mark.parametrize("name", private.CACHE_NAMES)
def test_a_cache_goes_by_either_name(name: str) -> None:
    model: Any = make_model("hourglass")
    ids = make_ids(1, 12)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = model(ids, use_cache=False).logits
        cache = model.make_cache()
        first = model(ids[:, :7], **{name: cache})
        assert first.cache is first.past_key_values is cache
        assert first[private.CACHE] is cache
        rest = model(ids[:, 7:], **{name: cache})
        torch.testing.assert_close(rest.logits, expected[:, 7:], atol=1e-10, rtol=0)
        wanted = model.generate(ids, use_cache=False, max_new_tokens=5, do_sample=False)
        read = model.read(ids[:, :7], model.make_cache())
        assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False, **{name: read}), wanted)
        assert read.seen == 16, "the given cache was not gone on in"
        inputs = model.prepare_inputs_for_generation(ids[:, -1:], **{name: cache})
        assert inputs[private.CACHE] is cache


def test_two_caches_are_refused() -> None:
    model = make_model("hourglass")
    with pytest.raises(FoveateError, match="two names of one argument"):
        model(make_ids(1, 3), cache=model.make_cache(), past_key_values=model.make_cache())
    with pytest.raises(FoveateError, match="two names of one argument"):
        model.generate(make_ids(1, 3), cache=model.make_cache(), past_key_values=model.make_cache())
