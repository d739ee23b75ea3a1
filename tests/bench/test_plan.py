"""The plan of all claims can be run: its commands are understood, and its verdicts follow from records."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import pytest
import yaml

from foveate.bench.peers import PEERS
from foveate.cli import Parser
from foveate.cli import bench as bench_cli
from foveate.spec import HierarchySpec

ROOT = Path(__file__).parents[2]
PLAN = ROOT / "experiments" / "speed.yaml"

pytestmark = pytest.mark.skipif(not PLAN.is_file(), reason="the tests stand alone")


@pytest.fixture(scope="module")
def plan() -> dict:
    return yaml.safe_load(PLAN.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def speed():
    spec = importlib.util.spec_from_file_location("speed", ROOT / "experiments" / "speed.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_is_understood(plan) -> None:
    quoted = {name: shlex.quote(walk) for name, walk in plan["walks"].items()}
    parser = Parser()
    bench_cli.add_arguments(parser)
    for bench in plan["benches"].values():
        args = parser.parse_args(shlex.split(bench["command"].format(**quoted, out="somewhere")))
        assert all(HierarchySpec.parse(walk, width=64, heads=2) for walk in args.walk)
        assert set(args.peer) <= set(PEERS)
        shown = {*args.walk, *args.peer}
        for check in bench["checks"]:
            assert {plan["walks"].get(wanted, wanted) for wanted in check["where"].values()} <= shown
            assert ("at_most" in check) != ("at_least" in check)


@pytest.mark.parametrize(("ratio", "verdict"), [(0.5, "yes"), (0.7, "NO"), (None, "NO")])
def test_a_claim_holds_or_not(speed, ratio, verdict) -> None:
    record = {"name": "2@1", "walk": "2@1", "context": 8, "batch": 1, "dtype": "float32", "ratio": ratio}
    check = {"where": {"walk": "ours"}, "key": "ratio", "at_most": 0.6, "means": "faster"}
    [line] = speed.judge(check, [record], {"ours": "2@1"})
    assert line.startswith(verdict)
    assert speed.judge(check, [], {"ours": "2@1"})[0].startswith("NO"), "what was not measured does not hold"


def test_the_document_lists_every_peer() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name, peer in PEERS.items():
        assert f"| `{name}` |" in text
        assert peer.package.split()[0] in text
