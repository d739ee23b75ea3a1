"""Which layers of a pretrained model bear being coarse, before any training: one run of layers at a time.

    python experiments/heal_map.py MODEL --data held.jsonl --lengths 1 2 --strides 2 4

Layers a to b - 1 of a Llama work on units of k tokens, at the rotary positions of tokens (k times the unit's number).
A unit enters as the last of its tokens or as their mean, as they are; what the run adds to it (not the unit itself) is
added to the finer stream from the token that completes it on, times ``--gate``. Printed: nats per token over the
source's, with the run ``coarse``, and with it left ``out``, on the same tokens. A run bears being coarse where coarse
is well below out. ``--plot`` draws all of it: a panel for each stride, a cell for each run of layers.

Shape legend: B documents, T tokens, D width, S units, k tokens per unit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from foveate import load
from foveate.data.prompt import document_mark
from foveate.report.figures import INK, WIDTH, drawn, new_figure

IGNORED = -100
WORST = 8.0  # nats: from here on a cell is as dark as can be
Costs = dict[tuple[int, int], float]  # of a run of layers from one to another


def documents(tokenizer, path: Path, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Ids [B, T] behind the document mark, and labels with what is padding ignored."""
    mark = document_mark(tokenizer)
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    rows = [[mark, *tokenizer(text, add_special_tokens=False).input_ids][:length] for text in texts]
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = labels[row, : len(tokens)] = torch.tensor(tokens)
    return ids, labels


def run(body, x_BSD: Tensor, first: int, end: int, stride: int = 1) -> Tensor:
    """Layers of transformers' Llama on units of ``stride`` tokens."""
    rotation = body.rotary_emb(x_BSD, (torch.arange(x_BSD.shape[1]) * stride)[None])
    for layer in body.layers[first:end]:
        x_BSD = layer(x_BSD, attention_mask=None, position_embeddings=rotation)
    return x_BSD


def coarse(body, x_BTD: Tensor, first: int, end: int, k: int, pooling: str, gate: float) -> Tensor:
    """The finer stream with the update of a coarse run added; nothing is added before the first unit is complete."""
    T = x_BTD.shape[1]
    group = x_BTD[:, : T // k * k].unflatten(1, (-1, k))
    unit_BSD = group.mean(2) if pooling == "mean" else group[:, :, -1]
    update = run(body, unit_BSD, first, end, k) - unit_BSD
    shown = torch.cat((torch.zeros_like(update[:, :1]), update), 1).repeat_interleave(k, 1)
    return x_BTD + gate * shown[:, 1 : T + 1]


def loss(model, x_BTD: Tensor, labels: Tensor) -> float:
    logits = model.lm_head(model.model.norm(x_BTD))[:, :-1].flatten(0, 1)
    return cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED).item()


def draw(panels: dict[str, Costs], path: Path) -> None:
    """A square for each run: its first layer to the right, its last one upwards."""

    def figure():
        layers = 1 + max(last for costs in panels.values() for _, last in costs)
        figure = new_figure(WIDTH, 0.6 + WIDTH / len(panels))
        every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (title, costs) in zip(every, panels.items(), strict=True):
            for (first, last), cost in costs.items():
                strength = min(max(cost, 0.0) / WORST, 1.0) ** 0.5
                ax.bar(first, 0.94, 0.94, last - 0.47, color="#2f81f7", alpha=0.06 + 0.6 * strength, linewidth=0)
                ax.text(first, last, f"{cost:.1f}", ha="center", va="center", color=INK, fontsize=7.5)
            ax.set(title=title, xlim=(-0.6, layers - 0.4), ylim=(-0.6, layers - 0.4), xlabel="from layer")
            ax.set_xticks(range(layers))
            ax.set_yticks(range(layers))
            ax.set_aspect("equal")
        every[0].set_ylabel("to layer")
        return figure

    (plot,) = drawn("tolerance", "nats per token over the source's", figure)
    path.write_text(plot.svg, encoding="utf-8")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="a Llama's folder")
    parser.add_argument("--data", type=Path, required=True, help="a .jsonl file with a field text")
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--length", type=int, default=256, help="tokens of a document")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 2], help="layers of the coarse run")
    parser.add_argument("--strides", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--gate", type=float, default=0.5)
    parser.add_argument("--plot", type=Path, help="an .svg file of it all; of each run the better pooling")
    args = parser.parse_args()
    model, tokenizer = load(args.model, device="cpu")
    if model.config.model_type != "llama":
        parser.error(f"{args.model} is a {model.config.model_type}, not a llama")
    ids, labels = documents(tokenizer, args.data, args.documents, args.length)
    body, n = model.model, model.config.num_hidden_layers
    streams = [body.embed_tokens(ids)]
    for layer in range(n):
        streams.append(run(body, streams[-1], layer, layer + 1))
    source = loss(model, streams[-1], labels)
    print(f"source {source:.3f} nats per token, {int((labels[:, 1:] != IGNORED).sum()):,} tokens, gate {args.gate:g}")
    print("| layers | stride | out | coarse, last | coarse, mean |\n|---|---|---|---|---|")
    panels: dict[str, Costs] = {"left out": {}} | {f"on units of {k} tokens": {} for k in args.strides}
    for length in args.lengths:
        for first in range(n - length + 1):
            end, x = first + length, streams[first]
            out = loss(model, run(body, x, end, n), labels) - source
            panels["left out"][first, end - 1] = out
            for k in args.strides:
                found = [
                    loss(model, run(body, coarse(body, x, first, end, k, pooling, args.gate), end, n), labels) - source
                    for pooling in ("last", "mean")
                ]
                panels[f"on units of {k} tokens"][first, end - 1] = min(found)
                print(f"| {first}-{end - 1} | {k} | {out:+.3f} | {found[0]:+.3f} | {found[1]:+.3f} |", flush=True)
    if args.plot is not None:
        draw(panels, args.plot)


if __name__ == "__main__":
    main()
