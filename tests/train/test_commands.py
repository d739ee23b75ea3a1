"""foveate train, eval and sample as a user calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from foveate.cli import main
from foveate.train.metrics import read_metrics
from foveate.train.settings import read_settings_file


@pytest.fixture
def flags(tmp_path, text_file) -> list[str]:
    shape = "--walk|1@1 1@4 1@1|--hidden|32|--heads|2|--context|32|--batch|4|--tokens|1.536k|--dtype|fp32|--device|cpu"
    data = f"--data|{text_file}|--tokenizer|bytes|--valid-fraction|0.1|--out|{tmp_path / 'run'}"
    every = "--log-every|2|--save-every|5|--eval-every|5|--eval-tokens|256"
    return f"train|{shape}|{data}|{every}".split("|")


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_train_prints_what_came_of_it(flags, tmp_path, capsys) -> None:
    assert main(flags) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{tmp_path / 'run'}: 49,536 parameters, 1,536 tokens in ")
    assert "step 10/12: validation " in output.err


def test_train_prints_json_lines(flags, tmp_path, capsys) -> None:
    assert main([*flags, "--json"]) == 0
    *records, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert records == read_metrics(tmp_path / "run")
    assert result["kind"] == "result"
    assert (result["step"], result["finished"], result["bpb"]) == (12, True, records[-1]["bpb"])


def test_flags_override_the_settings_file(flags, tmp_path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("hidden: 64\nheads: 2\nlr: 1e-3\nseed: 7\n")
    assert main([*flags, "--config", str(file)]) == 0
    settings = read_settings_file(tmp_path / "run" / "foveate.yaml")
    assert (settings["hidden"], settings["lr"], settings["seed"]) == (32, 1e-3, 7)


def test_resume_takes_the_folder_from_either_flag(flags, tmp_path, capsys) -> None:
    assert main(flags) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--tokens", "2k"]) == 0
    assert main([*flags, "--tokens", "2k", "--resume"]) == 0
    assert "2,048 tokens" in last_line(capsys.readouterr().out)


def test_eval_and_sample_of_a_run(undisturbed, text_file, capsys) -> None:
    run = str(undisturbed.path)
    assert main(["eval", run, "--data", str(text_file), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert list(values) == ["bpb", "perplexity", "nll_per_token", "tokens", "bytes", "context"]
    assert values["tokens"] == values["bytes"] == text_file.stat().st_size
    assert values["context"] == 32

    assert main(["eval", run]) == 0
    assert f"{text_file.stat().st_size // 10:,}"[:2] in capsys.readouterr().out

    assert main(["sample", run, "--prompt", "the cat", "--tokens", "9", "--seed", "1"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("the cat")
    assert "tokens/s" in output.err
    assert main(["sample", run, "--prompt", "the cat", "--tokens", "9", "--seed", "1", "--json"]) == 0
    assert "the cat" + json.loads(capsys.readouterr().out)["text"] == output.out.rstrip("\n")


def test_sample_reads_a_prompt_from_a_file(undisturbed, tmp_path, capsys) -> None:
    (tmp_path / "prompt.txt").write_text("the moon — ", encoding="utf-8")
    assert main(["sample", str(undisturbed.path), "--prompt-file", str(tmp_path / "prompt.txt"), "--greedy"]) == 0
    assert capsys.readouterr().out.startswith("the moon — ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train --walk 3@0", "walk: stride 0 in '3@0' must be from 1"),
        ("train --walk x", "walk 'x' is neither a preset"),
        ("train --context 0", "--context: '0' must be a whole number from 1"),
        ("train --data nowhere.txt --out {tmp}/run", "nowhere.txt"),
        ("train --data {tmp}/empty.txt --out {tmp}/run", "empty"),
        ("train --data {tmp}/latin.txt --out {tmp}/run", "latin.txt"),
        ("train --config nowhere.yaml", "cannot read the settings file nowhere.yaml: No such file"),
        ("train --resume {tmp}/nowhere", "there is no run to resume at {tmp}/nowhere"),
        ("train --resume {tmp}/run --overwrite", "--resume goes on with a run and --overwrite replaces it"),
        ("train --out {tmp}/empty.txt/run", "--out: {tmp}/empty.txt/run cannot be used as a folder"),
        ("eval {tmp}/nowhere --data {tmp}/text.txt", "there is no model at {tmp}/nowhere"),
        ("eval {tmp}", "--data is missing"),
        ("eval {run} --context 33", "--context: 33 must be from 1 to 32"),
        ("eval {run} --data nowhere.txt", "nowhere.txt"),
        ("sample {run} --prompt-file nowhere.txt", "--prompt-file: cannot read nowhere.txt: No such file"),
        ("sample {run} --prompt-file {tmp}/latin.txt", "--prompt-file: {tmp}/latin.txt is not UTF-8"),
        ("sample {run} --prompt a --tokens 32", "--tokens: 32 after a prompt of 2 are more than the model's 32"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(words, line, undisturbed, tmp_path, capsys) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("naïve é".encode("latin-1"))
    places = {"tmp": tmp_path, "run": undisturbed.path}
    assert main([word.format(**places) for word in words.split(" ")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert line.format(**places) in last_line(output.err)


def start(flags, tmp_path) -> subprocess.Popen:
    """A run in a process of its own, once it has written some of its log."""
    process = subprocess.Popen(
        [sys.executable, "-m", "foveate", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(read_metrics(tmp_path / "run")) < 10 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_first_step_leaves_nothing(flags, number, code, tmp_path, monkeypatch, capsys) -> None:
    def interrupted(*args) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)  # a signal may reach another thread first; what it raises here ends the wait

    monkeypatch.setattr("foveate.train.run.build_model", interrupted)
    assert main(flags) == code
    assert last_line(capsys.readouterr().err) == "interrupted before the first checkpoint; nothing was saved"
    assert not (tmp_path / "run").exists()


def test_a_second_signal_says_what_there_is_to_resume(flags, tmp_path, monkeypatch, capsys) -> None:
    def twice(self, record) -> None:
        if record["step"] == 8:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("foveate.train.display.Display.on_record", twice)
    assert main(flags) == 143
    line = f"interrupted; the newest checkpoint is of step 5; resume with: foveate train --resume {tmp_path / 'run'}"
    assert last_line(capsys.readouterr().err) == line


@pytest.mark.slow
def test_ctrl_c_leaves_with_a_checkpoint_and_says_how_to_go_on(flags, tmp_path) -> None:
    process = start([*flags, "--tokens", "1M"], tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    run = tmp_path / "run"
    step = int(last_line(err).split()[3])
    assert last_line(err) == f"stopped at step {step} of 7,813; resume with: foveate train --resume {run}"
    assert (run / f"checkpoint-{step}" / "manifest.json").is_file()


@pytest.mark.slow
def test_a_process_that_is_killed_resumes_to_the_bit(flags, tmp_path) -> None:
    flags += ["--tokens", "20k"]
    process = start(flags, tmp_path)
    process.kill()
    process.communicate(timeout=60)
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    assert not (run / "model.safetensors").exists()
    assert main(["train", "--resume", str(run)]) == 0
    assert main([*flags, "--out", str(undisturbed)]) == 0
    assert (run / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
    losses, expected = ([record.get("loss") for record in read_metrics(folder)] for folder in (run, undisturbed))
    assert losses == expected
