"""The probe on models whose use of the context is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foveate.data.tokenizer import make_tokenizer
from foveate.errors import FoveateError
from foveate.probes.plan import ShufflePlan
from foveate.probes.shuffle import probe_shuffle
from probes.planted import (
    BagOfWords,
    CopyHundredBack,
    LastTwenty,
    Planted,
    repeating_texts,
    topical_texts,
    twenty_texts,
)

PLAN = ShufflePlan(sequences=24, permutations=2)


TOKENIZER = make_tokenizer("bytes", list)


def probe(model, texts, plan=PLAN, **options):
    return probe_shuffle(model, TOKENIZER, texts, plan, progress=False, **options)


@pytest.mark.parametrize(
    ("model", "texts", "order", "topic", "share"),
    [
        (LastTwenty, twenty_texts, "20 [20, 20]", "20 [20, 20]", 1.0),
        (CopyHundredBack, repeating_texts, "100 [100, 100]", "100 [100, 100]", 1.0),
        (BagOfWords, topical_texts, "0 [0, 0]", "≥256 [≥256, ≥256]", 0.0),
    ],
)
def test_what_was_planted_is_found(model, texts, order, topic, share) -> None:
    (summary,) = probe(model(), texts(8, 2200)).summaries
    assert (str(summary.order), str(summary.topic)) == (order, topic)
    assert summary.order_share.value == pytest.approx(share, abs=0.03)


def test_the_curves_are_what_the_planted_model_makes_of_it() -> None:
    curves = {curve.condition: curve for curve in probe(LastTwenty(), twenty_texts(8, 2200)).curves}
    sure, rest = np.log(0.9), np.log(0.1 / 256)
    assert curves["original"].nats == pytest.approx(np.full(256, -sure), abs=1e-5)
    assert np.abs(curves["original"].delta.mean).max() == 0
    for condition in ("shuffle", "replace", "truncate"):
        delta = curves[condition].delta
        assert delta.distance.tolist() == list(range(1, 257))
        # one letter in 23 is right by chance
        assert delta.mean[:20].mean() == pytest.approx((sure - rest) * 22 / 23, rel=0.1)
        assert np.abs(delta.mean[20:]).max() < 1e-5
        assert (delta.low <= delta.mean).all()
        assert (delta.mean <= delta.high).all()


@pytest.mark.parametrize(("unit", "order"), [("block:100", 0), ("block:64", 100)])
def test_what_a_unit_keeps_whole_is_not_lost(unit, order) -> None:
    """A text of period 100 in blocks of 100 is the same text in any order of them."""
    plan = ShufflePlan(context=600, boundaries=(300,), units=(unit,), sequences=12, permutations=2)
    (summary,) = probe(CopyHundredBack(), repeating_texts(4, 1900), plan).summaries
    assert summary.order.tokens == order


def test_a_sweep_measures_each_boundary_with_one_original() -> None:
    calls = []

    class Counting(LastTwenty):
        def forward(self, input_ids, logits_to_keep=0):
            calls.append((tuple(input_ids.shape), logits_to_keep))
            return super().forward(input_ids, logits_to_keep)

    plan = ShufflePlan(context=128, boundaries=(96, 32), sequences=6, permutations=2)
    result = probe(Counting(), twenty_texts(4, 400), plan)
    assert [(summary.boundary, str(summary.order)) for summary in result.summaries] == [
        (32, "20 [20, 20]"),
        (96, "20 [20, 20]"),
    ]
    # original once, and per boundary two shuffles, two other texts and what is left of the text
    assert calls == [
        *[((6, 128), 96)],
        *[((12, 128), 96), ((12, 128), 96), ((6, 96), 96)],
        *[((12, 128), 32), ((12, 128), 32), ((6, 32), 32)],
    ]


@pytest.mark.parametrize("batch", [1, 5, 7])
def test_batches_change_nothing(batch) -> None:
    plan = ShufflePlan(context=64, sequences=10, permutations=2)
    one, other = (probe(CopyHundredBack(), topical_texts(3, 700), plan, batch=size).to_json() for size in (64, batch))
    assert one == other


def test_a_seed_repeats_and_another_differs() -> None:
    def curve(seed):
        return probe(LastTwenty(), twenty_texts(8, 600), ShufflePlan(context=64, seed=seed, sequences=10)).to_json()[1]

    assert curve(1) == curve(1)
    assert curve(1) != curve(2)


def test_another_condition_more_changes_nothing() -> None:
    few = ShufflePlan(context=64, sequences=10, conditions=("shuffle",))
    all_, some = (
        probe(LastTwenty(), twenty_texts(8, 600), plan) for plan in (ShufflePlan(context=64, sequences=10), few)
    )
    assert [c.to_json() for c in some.curves] == [
        c.to_json() for c in all_.curves if c.condition in ("original", "shuffle")
    ]
    assert some.summaries[0].topic is None
    assert some.summaries[0].order_share is None
    assert some.summaries[0].to_json()["topic_horizon"] is None


def test_records_have_what_others_read() -> None:
    *curves, summary = probe(LastTwenty(), twenty_texts(8, 600), ShufflePlan(context=64, sequences=10)).to_json()
    assert [curve["condition"] for curve in curves] == ["original", "shuffle", "replace", "truncate"]
    bands = ["distance", "delta_nats", "ci_low", "ci_high", "nats"]
    for curve in curves:
        assert {len(curve[key]) for key in bands} == {32}
        assert (curve["context"], curve["boundary"], curve["sequences"]) == (64, 32, 10)
        assert curve["permutations"] == (3 if curve["condition"] in ("shuffle", "replace") else 1)
    assert (summary["order_horizon"], summary["order_horizon_ci"]) == (20, [20, 20])
    assert (summary["topic_horizon"], summary["topic_horizon_ci"]) == (20, [20, 20])
    assert 0.9 < summary["order_share"] < 1.1
    assert summary["surviving_share"] == pytest.approx(1 - summary["order_share"])


def test_an_interrupted_probe_goes_on(tmp_path) -> None:
    class Stopping(LastTwenty):
        calls, stop_at = 0, 11

        def forward(self, input_ids, logits_to_keep=0):
            self.calls += 1
            if self.calls == self.stop_at:
                raise KeyboardInterrupt
            return super().forward(input_ids, logits_to_keep)

    texts, plan = twenty_texts(8, 600), ShufflePlan(context=64, sequences=10, permutations=2)
    with pytest.raises(KeyboardInterrupt):
        probe(Stopping(), texts, plan, batch=4, folder=tmp_path)
    rest = Stopping()
    rest.stop_at = None
    resumed = probe(rest, texts, plan, batch=4, folder=tmp_path)
    assert rest.calls == 6 + 4, "the first four sequences were there; four more and two are left"
    assert resumed.to_json() == probe(LastTwenty(), texts, plan).to_json()
    again = Stopping()
    again.stop_at = 1
    assert probe(again, texts, plan, folder=tmp_path).to_json() == resumed.to_json()
    with pytest.raises(FoveateError, match="holds an experiment of another seed and text; choose another folder"):
        probe(rest, texts, ShufflePlan(context=64, sequences=10, permutations=2, seed=1), folder=tmp_path)
    (tmp_path / "losses.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(FoveateError, match=r"losses\.npz is damaged; remove it to begin again"):
        probe(rest, texts, plan, folder=tmp_path)


def test_any_callable_will_do_and_training_mode_is_given_back() -> None:
    class Bare:
        def __call__(self, input_ids):
            assert not torch.is_grad_enabled()
            return LastTwenty()(input_ids).logits

    plan = ShufflePlan(context=64, sequences=6)
    assert str(probe(Bare(), twenty_texts(8, 600), plan).summaries[0].order) == "20 [20, 20]"
    model = LastTwenty().train()
    probe(model, twenty_texts(8, 600), plan)
    assert model.training


@pytest.mark.parametrize(
    ("texts", "plan", "message"),
    [
        (["abc" * 20], {}, "too short for one sequence of 512 tokens: its longest document has 60"),
        (["abc" * 300], {}, "replace takes 256 tokens from another document, and the data is one document"),
        (["abc" * 300, "short"], {}, "the data is 2 documents with none other as long"),
    ],
)
def test_text_that_does_not_do(texts, plan, message) -> None:
    with pytest.raises(FoveateError, match=message):
        probe(LastTwenty(), texts, ShufflePlan(**plan))


@pytest.mark.parametrize("conditions", [("shuffle", "truncate"), ("shuffle", "replace")])
def test_one_document_does(conditions) -> None:
    plan = ShufflePlan(context=64, conditions=conditions)
    result = probe(LastTwenty(), twenty_texts(1, 3000), plan)
    assert str(result.summaries[0].order) == "20 [20, 20]"
    if "replace" in conditions:
        assert str(result.summaries[0].topic) == "20 [20, 20]"
        assert result.summaries[0].documents == 8


def test_a_context_above_the_models_positions() -> None:
    class Short(Planted):
        config = SimpleNamespace(max_position_embeddings=128, get_text_config=lambda: SimpleNamespace(vocab_size=257))

    with pytest.raises(FoveateError, match="--context: 512 must be from 1 to 128, the model's positions"):
        probe(Short(), twenty_texts(2, 600))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"context": 1}, "--context: 1 must be at least 2"),
        ({"boundaries": (512,)}, "--boundary: 512 must be from 1 to 511"),
        ({"conditions": ("scramble",)}, "--conditions: 'scramble' is unknown; choose of shuffle, replace, truncate"),
        ({"conditions": ("original",)}, "--conditions: nothing to compare with original"),
        ({"units": ("line",)}, "--unit: 'line' is unknown; write token, word, sentence or block:K"),
        ({"units": ("block:0",)}, "--unit: 'block:0' is unknown"),
        ({"sequences": 1}, "--sequences: 1 must be at least 2"),
        ({"seed": -1}, "--seed: -1 must be at least 0"),
        ({"permutations": 0}, "--permutations: 0 must be at least 1"),
        ({"tolerance": 1.5}, "--tolerance: 1.5 must be a share between 0 and 1"),
    ],
)
def test_plans_that_cannot_be(wrong, message) -> None:
    with pytest.raises(FoveateError, match=message):
        ShufflePlan(**wrong)
