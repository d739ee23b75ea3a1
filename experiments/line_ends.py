"""How much of a byte model's shuffle curve is about where a line ends? In hard-wrapped text a space or a line end is
a matter of counting.

    python experiments/line_ends.py RUN OUT --data FILE

RUN is a run on bytes, OUT the folder of a finished ``foveate probe shuffle RUN --data FILE --out OUT`` of one boundary.
One JSON line for each range of distances: the mean of the curve, and the share of it at spaces and line ends, where
the curve is far enough from nothing to have one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from foveate.data.documents import read_documents
from foveate.data.encode import encode_documents
from foveate.data.tokenizer import load_tokenizer
from foveate.probes.horizons import SMALLEST_NATS
from foveate.probes.sequences import cut_sequences

RANGES = ((1, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 256), (257, 512))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    args = parser.parse_args()
    with np.load(args.out / "losses.npz") as file:
        plan = json.loads(str(file["identity"]))
        (boundary,) = plan["boundaries"]
        delta_ND = file[f"shuffle token {boundary}"].mean(1) - file["original"]
    documents = [ids for _, ids in encode_documents(load_tokenizer(args.run), read_documents(args.data))]
    sequences = cut_sequences(documents, plan["context"], plan["sequences"], plan["seed"])
    assert sequences.digest == plan["text"], "these are not the texts that were probed"
    scored_ND = sequences.ids[:, boundary:]
    is_gap_ND = (scored_ND == ord(" ")) | (scored_ND == ord("\n"))
    for first, last in RANGES:
        delta, is_gap = delta_ND[:, first - 1 : last], is_gap_ND[:, first - 1 : last]
        share = round(float((delta * is_gap).sum() / delta.sum()), 2) if delta.mean() > SMALLEST_NATS else None
        record = {"first": first, "last": last, "delta_nats": round(float(delta.mean()), 4)}
        print(json.dumps(record | {"share_at_gaps": share, "gaps": round(float(is_gap.mean()), 2)}))


if __name__ == "__main__":
    main()
