"""Tasks of lm-eval, and that its bits per byte are ours."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path

import pytest

from foveate import load
from foveate.cli import main
from foveate.tasks import _metrics, run_tasks

EXAMPLE = Path(__file__).parents[2] / "examples" / "lm_eval"


def test_metrics_by_plain_names() -> None:
    scores = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": 0.1, "exact_match,strict": 1, "sample_len": 3}
    assert dict(_metrics(scores.items())) == {"acc": 0.5, "exact_match,strict": 1.0}


def test_without_lm_eval_the_message_says_what_to_install(trained_run: Path, monkeypatch, capsys) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "lm_eval" else find_spec(name))
    assert main(["eval", str(trained_run), "--tasks", "held_out"]) == 2
    assert "pip install 'foveate[eval]'" in capsys.readouterr().err


@pytest.fixture
def lm_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lm_eval")
        import lm_eval.models.huggingface  # noqa: F401
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)  # the example works from any folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("lm_eval")
@pytest.mark.parametrize("context", ["32", "17"])
def test_bits_per_byte_are_those_of_foveate_eval(
    trained_run: Path, context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [str(trained_run), "--context", context, "--json"]
    capsys.readouterr()
    assert main(["eval", *common, "--data", str(EXAMPLE / "held_out.jsonl")]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert main(["eval", *common, "--tasks", "held_out", "--include-path", str(EXAMPLE)]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert theirs["task"] == "held_out"
    assert theirs["bits_per_byte"] == pytest.approx(ours["bpb"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("lm_eval")
def test_lm_evals_own_model_gives_the_same_without_a_second_mark(trained_run: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = load(trained_run)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, max_length=32, batch_size=1, add_bos_token=False)
    manager = TaskManager(include_path=str(EXAMPLE), include_defaults=False)
    scores = simple_evaluate(theirs, tasks=["held_out"], task_manager=manager, bootstrap_iters=0, log_samples=False)
    ours = run_tasks(model, tokenizer, ["held_out"], context=32, include_path=EXAMPLE)
    assert dict(_metrics(scores["results"]["held_out"].items())) == pytest.approx(ours["held_out"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("lm_eval")
def test_mistakes_are_one_line(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(trained_run)
    for words, message in (
        (["--tasks", "no_such_task"], "'no_such_task' is not a task"),
        (["--tasks", "held_out", "--include-path", str(tmp_path / "nowhere")], "there is no folder"),
        (["--tasks", "held_out", "--data", "books"], "exclude one another"),
    ):
        assert main(["eval", run, *words]) == 2
        assert message in capsys.readouterr().err
    for name in ("held_out.yaml", "held_out.py"):  # without the text
        shutil.copy(EXAMPLE / name, tmp_path / name)
    assert main(["eval", run, "--tasks", "held_out", "--include-path", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("foveate: --tasks held_out:")
