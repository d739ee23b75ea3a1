"""How exactly ``foveate convert`` brings each family in, as a table: ``python tools/families.py``.

Random small configurations of transformers' own classes, all weights random, texts of 40 tokens. The error is the
largest of any logit over the largest logit. For fp64, what transformers computes in fp32 whatever the model's type
(norms, rotary positions, softmax) is computed in fp64 too.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from converting.sources import CONFIGS, NUMBER, worst_errors


def main() -> None:
    print(f"| family | worst of {NUMBER}, fp64 | fp32 |")
    print("|---|---|---|")
    for family in CONFIGS:
        double, single, _ = worst_errors(family)
        print(f"| {family} | {double:.1e} | {single:.1e} |", flush=True)


if __name__ == "__main__":
    main()
