"""Models of transformers' own classes as walks: the same logits, the same text; and what is refused, by name."""

import json
import random
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from converting.sources import CONFIGS, make_source, worst_errors
from foveate import FoveateForCausalLM, convert
from foveate.cli import main
from foveate.converting import from_llama
from foveate.errors import FoveateError

SHAPE = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}


def tiny_llama(**changes: Any) -> Any:
    return make_source(transformers.LlamaConfig(**{"vocab_size": 61, **SHAPE, "num_key_value_heads": 2, **changes}))


@pytest.mark.parametrize("family", CONFIGS)
def test_a_plain_walk_computes_what_its_source_computes(family: str) -> None:
    double, single, spread = worst_errors(family, number=2)
    assert double < 1e-12
    assert single < 1e-5
    assert spread > 0.1  # logits that could differ


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_twenty_of_each_family(family: str) -> None:
    double, single, _ = worst_errors(family)
    assert double < 1e-12
    assert single < 1e-4


@pytest.mark.parametrize("family", CONFIGS)
def test_text_is_the_same_token_for_token(family: str) -> None:
    source = make_source(CONFIGS[family](random.Random(f"text {family}")))
    ids = torch.randint(3, 40, (1, 6), generator=torch.Generator().manual_seed(0))
    settings = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(convert(source).generate(ids, **settings), source.generate(ids, **settings))


@pytest.mark.parametrize("family", CONFIGS)
def test_a_saved_conversion_is_an_ordinary_model(family: str, tmp_path) -> None:
    model = convert(make_source(CONFIGS[family](random.Random(f"saved {family}"))))
    model.save_pretrained(tmp_path)
    ids = torch.arange(3, 12)[None]
    again: Any = FoveateForCausalLM.from_pretrained(tmp_path).eval()
    assert again.config.spec == model.config.spec
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("family", "change", "named"),
    [
        ("Llama", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("Llama", {"attention_dropout": 0.1}, "attention_dropout is 0.1, not 0"),
        ("Llama", {"residual_multiplier": 0.5}, "residual_multiplier is 0.5, which is not known"),
        ("Phi-3", {"resid_pdrop": 0.2}, "resid_pdrop is 0.2"),
        ("Gemma 2", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ("Gemma 3", {"attn_logit_softcapping": 20.0}, "attn_logit_softcapping is 20.0"),
        ("Qwen3", {"rope_parameters": {"rope_type": "proportional", "rope_theta": 1e4}}, "rope_type is 'proportional'"),
        ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "bend": 2}}, "bend is 2"),
        ("Qwen2", {"layer_types": ["full_attention", "chunked_attention"]}, "'chunked_attention'"),
    ],
)
def test_what_a_walk_has_not_is_refused_by_name(family: str, change: dict[str, Any], named: str) -> None:
    config = CONFIGS[family](random.Random("refused"))
    source = make_source(config)
    for name, value in change.items():
        setattr(source.config, name, value)
    source.config.num_hidden_layers = min(source.config.num_hidden_layers, 2)
    with pytest.raises(FoveateError) as error:
        convert(source)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_other_kinds_of_models_are_refused() -> None:
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20))
    with pytest.raises(FoveateError, match="type gpt2 cannot be converted; these can: llama, smollm3"):
        convert(gpt2)
    with pytest.raises(FoveateError, match="this is a Foveate model"):
        convert(convert(tiny_llama()))


def test_layers_stand_in_order_along_a_walk() -> None:
    source = tiny_llama(num_hidden_layers=4)
    model = convert(source, "1@1 2@4 1@1")
    layers = [layer for step in model.model.decoder.steps if hasattr(step, "layers") for layer in step.layers]
    for ours, its in zip(layers, source.model.layers, strict=True):
        assert torch.equal(ours.o_proj.weight, its.self_attn.o_proj.weight)
    with pytest.raises(FoveateError, match="has 5 layers and the model 4; write a walk of 4"):
        convert(source, "5@1")


def test_runs_part_where_ropes_do() -> None:
    shape = SHAPE | {"num_hidden_layers": 4, "vocab_size": 61, "num_key_value_heads": 2, "pad_token_id": None}
    config = transformers.SmolLM3Config(**shape, no_rope_layer_interval=3)
    assert convert(make_source(config)).config.walk == "2@1 1@1:rope=none 1@1"
    assert convert(make_source(config), "1@1 2@4 1@1:window8").config.walk == "1@1 1@4 1@4:rope=none 1@1:window8"


def test_dynamic_positions_can_be_fixed_for_longer_texts() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
    source = tiny_llama(max_position_embeddings=16, rope_parameters=rope)
    ids = torch.randint(3, 61, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = source(ids).logits
        torch.testing.assert_close(convert(source, context=40)(ids).logits, expected, atol=1e-5, rtol=1e-5)
        assert (convert(source)(ids).logits - expected).abs().max() > 1e-2


def test_from_llama_is_still_where_it_was() -> None:
    import foveate.hf.convert
    from foveate.hf.convert import from_llama as old

    from foveate.hf import convert

    assert old is convert.from_llama is foveate.hf.convert.from_llama is from_llama
    with pytest.raises(AttributeError, match="no attribute 'from_gpt2'"):
        _ = convert.from_gpt2


def test_from_llama_is_a_plain_walk() -> None:
    llama = tiny_llama().to(torch.float64)
    model = from_llama(llama)
    assert model.dtype == torch.float64
    assert model.config.walk == "3@1"
    assert model.generation_config.to_dict() == llama.generation_config.to_dict()


# the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from foveate.data.tokenizer import make_tokenizer

    folder = tmp_path_factory.mktemp("source")
    tokenizer = make_tokenizer("bytes", list)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    source = tiny_llama(vocab_size=len(tokenizer), num_hidden_layers=2)
    source.generation_config.temperature = 0.5
    source.generation_config.do_sample = True
    source.save_pretrained(folder, max_shard_size="50KB")
    tokenizer.save_pretrained(folder)
    return folder


def test_a_folder_of_shards(folder, tmp_path, capsys) -> None:
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    (tmp_path / "text.txt").write_text("It was a dark and stormy night.")
    words = ["convert", str(folder), "--out", str(tmp_path / "out"), "--json", "--report", str(tmp_path / "text.txt")]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["walk"] == "2@1"
    assert told["before"]["bpb"] == pytest.approx(told["after"]["bpb"], rel=1e-5)
    source = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert isinstance(model, FoveateForCausalLM)
    assert model.generation_config.temperature == 0.5
    assert "m.content" in transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, source(ids).logits, atol=1e-5, rtol=1e-5)


def test_it_is_said_up_to_which_length_a_conversion_is_exact(tmp_path, capsys) -> None:
    from foveate.data.tokenizer import make_tokenizer

    tokenizer = make_tokenizer("bytes", list)
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
    source = tiny_llama(vocab_size=len(tokenizer), max_position_embeddings=16, rope_parameters=rope)
    source.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    words = ["convert", str(tmp_path / "source"), "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    assert "with the length of a text: as there up to 16 tokens\n" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "longer"), "--context", "40"]) == 0
    assert "as there up to" not in capsys.readouterr().err  # it is so at 40 tokens


def test_training_goes_on_from_ropes_and_norms_of_a_conversion(tmp_path) -> None:
    """What its layers are made of is in its folder alone; no flag of training says it."""
    from foveate import load
    from foveate.data.tokenizer import make_tokenizer

    tokenizer = make_tokenizer("bytes", list)
    config = transformers.SmolLM3Config(
        **SHAPE, vocab_size=len(tokenizer), num_key_value_heads=2, no_rope_layer_interval=3, pad_token_id=None
    )
    make_source(config).save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    (tmp_path / "text.txt").write_text("It was a dark and stormy night. " * 40)
    assert main(["convert", str(tmp_path / "source"), "--out", str(tmp_path / "made")]) == 0
    places = ["--data", tmp_path / "text.txt", "--from", tmp_path / "made", "--out", tmp_path / "run"]
    few = "--context 16 --batch 1 --tokens 16 --lr 1e-9 --valid-fraction 0"
    assert main(["train", *map(str, places), *few.split()]) == 0
    (made, _), (tuned, _) = load(tmp_path / "made"), load(tmp_path / "run")
    assert tuned.config.walk == made.config.walk == "2@1 1@1:rope=none"
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(tuned(ids).logits, made(ids).logits, atol=1e-4, rtol=1e-4)


def _cut(folder: Any) -> None:
    shard = next(folder.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])


def _bert(folder: Any) -> None:
    for weights in folder.glob("model*"):
        weights.unlink()
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    transformers.BertForMaskedLM(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "more", "named"),
    [
        (lambda folder: None, ["--walk", "1@1 4@4 1@1"], "has 6 layers and the model 2"),
        (lambda folder: None, ["--walk", "2@3"], "must start and end at stride 1"),
        (_cut, [], "is damaged"),
        (_bert, [], "not a causal language model"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder, tmp_path, capsys, change: Callable[[Any], None], more: list[str], named: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    change(source)
    capsys.readouterr()
    assert main(["convert", str(source), "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_no_model_and_a_full_disk(folder, tmp_path, capsys, monkeypatch) -> None:
    assert main(["convert", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "there is no model at" in capsys.readouterr().err

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FoveateForCausalLM, "save_pretrained", full)
    assert main(["convert", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "no space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
