from __future__ import annotations

import pytest

from foveate.train.metrics import Metrics, read_metrics


def test_a_resumed_log_goes_on_where_the_checkpoint_was(tmp_path) -> None:
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    with Metrics(tmp_path) as metrics:
        metrics.add({"step": 1})
        metrics.save(checkpoint)
        metrics.add({"step": 2})
    with Metrics(tmp_path, checkpoint=checkpoint) as metrics:
        metrics.add({"step": 2, "again": True})
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2, "again": True}]


def test_a_record_is_whole_however_little_is_written_at_once(tmp_path) -> None:
    with Metrics(tmp_path) as metrics:
        file = metrics.file

        class Slow:
            def write(self, content) -> int:
                return file.write(content[:3])

            def close(self) -> None:
                file.close()

        metrics.file = Slow()
        metrics.add({"step": 1, "loss": 2.5})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.5}]


def test_half_a_record_is_none(tmp_path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]
    assert read_metrics(tmp_path / "nowhere") == []


def test_tensorboard_shows_the_same(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Metrics(tmp_path, tensorboard=True) as metrics:
        metrics.add({"kind": "train", "step": 3, "loss": 2.5})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    [scalar] = events.Scalars("train/loss")
    assert (scalar.step, scalar.value) == (3, 2.5)
