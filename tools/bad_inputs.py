"""Give foveate 30 kinds of bad input and print, as a Markdown table, the line that each gets in return.

    python tools/bad_inputs.py                        # print the table
    python tools/bad_inputs.py docs/robustness.md     # put it into this file, between its two marks

Every line must be one line, and the exit code 2: what a user can put right is never a traceback.
"""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from foveate.cli import main as foveate
from foveate.files import write_atomically

BEGIN, END = "<!-- bad inputs -->", "<!-- end of bad inputs -->"

TRAIN = (
    "train --walk 1@1 --hidden 16 --heads 2 --data text.txt --tokenizer bytes --context 32 --batch 4 --tokens 512 "
    "--valid-fraction 0 --dtype fp32 --device cpu --out run"
)

COMMANDS = (
    "foveate trian",
    "foveate train --walk '2@1 8@x 2@1'",
    "foveate train --walk 'bottomup:12'",
    "foveate train --hidden 100 --heads 3",
    "foveate train --context 0",
    "foveate train --batch 8 --accumulate 3",
    "foveate train --lr fast",
    "foveate train --on-nan ignore",
    "foveate train --config typo.yaml",
    "foveate train --data nowhere.txt",
    "foveate train --data empty.txt",
    "foveate train --data latin-1.txt",
    "foveate train --data broken.jsonl",
    "foveate train --data cut.txt.xz",
    "foveate train --data table.csv",
    "foveate train --data cut.parquet",
    "foveate train --resume moved",
    "foveate train --data text.txt --tokenizer bytes --context 4k --batch 1",
    "foveate train --data text.txt --tokenizer bpe:7",
    "foveate train --data text.txt --out run",
    "foveate train --resume nowhere",
    "foveate train --resume run --hidden 32",
    "foveate train --resume damaged",
    "foveate eval pickled --data text.txt",
    "foveate sample huge --prompt Once",
    "foveate sample no-numbers --prompt Once",
    "foveate sample other-shape --prompt Once",
    "foveate sample pipe --prompt Once",
    "foveate sample run --prompt Once --seed 12345678901234567890123",
    "foveate export run --out run",
)


def main() -> int:
    lines = [f"| `{words}` | {line} |" for words, line in rows()]
    table = "\n".join(["| command | what it says |", "|---|---|", *lines])
    if len(sys.argv) == 1:
        print(table)
        return 0
    path = Path(sys.argv[1])
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomically(path, f"{before}{BEGIN}\n{table}\n{END}{after}")
    return 0


def rows() -> list[tuple[str, str]]:
    """Each command, and the line it prints."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["FOVEATE_CACHE"] = f"{folder}/cache"
        make_inputs()
        return [(words, answer(words)) for words in COMMANDS]


def answer(words: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = foveate(shlex.split(words)[1:])
    lines = errors.getvalue().splitlines()
    if code != 2 or output.getvalue() or not lines[-1].startswith("foveate: ") or "Traceback" in errors.getvalue():
        raise SystemExit(f"{words}: exit code {code}\n{output.getvalue()}{errors.getvalue()}")
    return lines[-1].removeprefix("foveate: ").replace(f"{Path.cwd()}/", "").replace("|", "\\|")


def make_inputs() -> None:
    """What the commands name, good and bad, in the working directory."""
    Path("text.txt").write_text("Recent text sharp, distant text coarse. " * 50)
    Path("empty.txt").write_text("")
    Path("latin-1.txt").write_bytes("déjà vu".encode("latin-1"))
    Path("broken.jsonl").write_text('{"text": "one"}\n{"text": \n')
    Path("cut.txt.xz").write_bytes(lzma.compress(b"a long text " * 1000)[:-20])
    Path("table.csv").write_text("id,body\n1,text\n")
    Path("cut.parquet").write_bytes(b"PAR1 and no more")
    Path("typo.yaml").write_text("hiden: 256\n")
    quietly(f"{TRAIN}")
    quietly(f"{TRAIN.removesuffix('run')}damaged --save-every 4")
    weights = Path("damaged/checkpoint-4/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    shutil.copy("text.txt", "here.txt")
    quietly(f"{TRAIN.removesuffix('run')}moved --data here.txt")
    Path("here.txt").rename("there.txt")
    damage_weights()
    config = json.loads(Path("run/config.json").read_text())
    for name, changes in {"pickled": {}, "huge": {"walk": "12@1", "hidden_size": 1000000}}.items():
        Path(name).mkdir()
        Path(name, "config.json").write_text(json.dumps(config | changes))
    shutil.copy("run/model.safetensors", "huge")
    Path("pickled/pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")


def damage_weights() -> None:
    """Copies of the model: one with a value that is no number, one without a row, one with a pipe in it."""
    for name in ("no-numbers", "other-shape", "pipe"):
        shutil.copytree("run", name, ignore=shutil.ignore_patterns("checkpoint-*", "manifest.json", "foveate.yaml"))
        tensors = load_file("run/model.safetensors")
        first = next(name for name in sorted(tensors) if tensors[name].dim() == 2)
        if name == "no-numbers":
            tensors[first][0, 0] = float("nan")
        if name == "other-shape":
            tensors[first] = tensors[first][1:].contiguous()
        save_file(tensors, f"{name}/model.safetensors", metadata={"format": "pt"})
    Path("pipe/generation_config.json").unlink(missing_ok=True)
    os.mkfifo("pipe/generation_config.json")


def quietly(words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        if foveate(shlex.split(words)):
            raise SystemExit(errors.getvalue())


if __name__ == "__main__":
    raise SystemExit(main())
