"""What is asked before anything is scored: ids that a model knows, and rows that memory has room for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from foveate.data.tokenizer import make_tokenizer
from foveate.errors import FoveateError
from foveate.scoring import LOGITS_PER_BATCH, TOKENS_PER_BATCH, Scorer, check_ids


def of_vocabulary(size: int) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=size)))


@pytest.mark.parametrize(("ids", "named"), [([0, 7], None), ([], None), ([3, 8, 2], "8"), ([3, -1, 2], "-1")])
def test_an_id_that_the_model_does_not_know_is_named(ids: list[int], named: str | None) -> None:
    if named is None:
        check_ids(np.array(ids), "the text", of_vocabulary(8))
    else:
        with pytest.raises(FoveateError, match=f"the text has token id {named}, the model knows 8 ids"):
            check_ids(np.array(ids), "the text", of_vocabulary(8))


@pytest.mark.parametrize("vocabulary", [2, 1 << 16])
@pytest.mark.parametrize("T", [1, 100, 1 << 20])
def test_rows_at_once_keep_both_tokens_and_logits_in_bounds(vocabulary: int, T: int) -> None:
    model = of_vocabulary(vocabulary)
    model.forward = lambda input_ids: None
    scorer = Scorer(model, make_tokenizer("bytes", list))
    rows = scorer.rows(T)
    assert rows == 1 or (rows * T <= TOKENS_PER_BATCH and rows * T * vocabulary <= LOGITS_PER_BATCH)
    more = (rows + 1) * T
    assert more > TOKENS_PER_BATCH or more * vocabulary > LOGITS_PER_BATCH, "and no fewer than have room"
    scorer.batch = 5
    assert scorer.rows(T) == 5
