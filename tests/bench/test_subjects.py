"""What a comparison knows of its models."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveate.bench.subjects import Subject, _thin, load_subjects
from foveate.errors import FoveateError
from foveate.loading.several import short_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["one/run", "two/run"], ["one/run", "two/run"]),
        (["x/one/run", "y/one/run", "b"], ["x/one/run", "y/one/run", None]),
    ],
)
def test_names_are_as_short_as_tells_them_apart(paths, names) -> None:
    found = short_names([Path(path) for path in paths])
    assert len(set(found)) == len(paths)
    assert all(name is None or mine == name for mine, name in zip(found, names, strict=True))


@pytest.mark.parametrize(("given", "message"), [(["a"], "there is no model at a"), (["a", "b/../a"], "named twice")])
def test_a_comparison_takes_two_different_models(given, message) -> None:
    with pytest.raises(FoveateError, match=message):
        load_subjects(given)


def test_a_long_curve_is_thinned_but_keeps_its_end() -> None:
    records = [{"step": step} for step in range(1, 1002)]
    thin = _thin(records)
    assert len(thin) <= 200
    assert thin[-1] == {"step": 1001}
    assert thin == sorted(thin, key=lambda record: record["step"])
    assert _thin(records[:3]) == records[:3]


@pytest.mark.parametrize(("fields", "beyond"), [({"walk": "1@1"}, True), ({"rope_theta": 1e4}, True), ({}, False)])
def test_only_rotary_positions_reach_beyond_training(fields, beyond) -> None:
    class Config:
        max_position_embeddings = 8

        def get_text_config(self):
            return self

    class Model:
        config = Config()

    vars(Model.config).update(fields)
    subject = Subject(name="it", path=Path(), model=Model(), tokenizer=None, settings=None)
    assert subject.reads_beyond_positions is beyond
    assert subject.positions == 8
