"""Print the oldest releases that pyproject.toml allows, as requirements that pip installs: ``python tools/oldest.py``.

Where another package asks for more than we do, pip refuses them: the bound is then ours to raise.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = ("dev",)  # what the tests need; what they only skip without is left out
UNRELATED = ("mypy", "ruff", "types-PyYAML")  # checks of the source, which no release of a dependency changes


def oldest(requirements: list[str]) -> list[str]:
    """``name>=1.2,<3`` as ``name==1.2``."""
    pinned = []
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        bound = re.search(r">=\s*([\w.]+)", requirement)
        assert name, requirement
        if name[0] not in UNRELATED:
            pinned.append(f"{name[0]}=={bound[1]}" if bound else name[0])
    return pinned


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [more for extra in EXTRAS for more in project["optional-dependencies"][extra]]
    print(*oldest(wanted), sep="\n")
