"""Promises as assertions for a model author's own tests::

from foveate.promises.asserts import assert_causal, assert_split_invariant
def test_my_model():
    assert_causal(model); assert_split_invariant(model)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from foveate.errors import FoveateError
from foveate.promises.check import check
from foveate.promises.report import NOT_OFFERED, describe


def assert_promises(model: nn.Module, *names: str, needed: bool = True, **how: Any) -> None:
    """Raise an AssertionError for each of the named promises that the model breaks; of all if none is named.

    Args:
        needed: a promise that the model does not offer is an error too, where promises are named.
        how: as for ``foveate.check``: ``length``, ``seed``, ``quick``, ``tokenizer``.
    """
    report = check(model, promises=names or None, **how)
    lines = [describe(finding) for finding in report.broken]
    if needed and names:
        lines += [f"{f.name}: not offered: {f.note}" for f in report.findings if f.state == NOT_OFFERED]
    if lines:
        raise AssertionError("\n".join(lines))


def _assert(model: nn.Module, names: Sequence[str], how: dict[str, Any]) -> None:
    if "promises" in how:
        raise FoveateError("promises: this function checks its own; call assert_promises for others")
    assert_promises(model, *names, **how)


def assert_causal(model: nn.Module, **how: Any) -> None:
    """No output depends on a later token, by replacing and by gradients."""
    _assert(model, ("causal", "causal-gradient"), how)


def assert_split_invariant(model: nn.Module, **how: Any) -> None:
    """A cache changes nothing, however a text is split over calls."""
    _assert(model, ("cached", "chunked"), how)


def assert_padding_invariant(model: nn.Module, **how: Any) -> None:
    """Padding changes nothing, on either side."""
    _assert(model, ("left-padding", "right-padding"), how)


def assert_rows_independent(model: nn.Module, **how: Any) -> None:
    """A row of a batch gives what it gives alone, in any order."""
    _assert(model, ("row-alone", "batch-order"), how)


def assert_packing_invariant(model: nn.Module, **how: Any) -> None:
    """A packed document gives what it gives alone."""
    _assert(model, ("packed",), how)


def assert_cache_reorders(model: nn.Module, **how: Any) -> None:
    """Rows of a cache can be reordered, as beam search does."""
    _assert(model, ("reordered",), how)


def assert_cache_crops(model: nn.Module, **how: Any) -> None:
    """Tokens can be taken back from a cache, as assisted decoding does."""
    _assert(model, ("cropped",), how)


def assert_generates(model: nn.Module, **how: Any) -> None:
    """generate goes by the logits of reading its text at once, with a cache, without, and behind padding."""
    _assert(model, ("generate", "generate-uncached", "generate-padded"), how)


def assert_loss(model: nn.Module, **how: Any) -> None:
    """The loss is the mean over tokens, each predicted from those before it, ignored ones left out."""
    _assert(model, ("labels", "ignored-labels"), how)


def assert_gradients_split(model: nn.Module, **how: Any) -> None:
    """Gradients through the cache are those of one call."""
    _assert(model, ("split-gradients",), how)


def assert_saves(model: nn.Module, **how: Any) -> None:
    """Saving and loading changes nothing."""
    _assert(model, ("saved",), how)


def assert_deterministic(model: nn.Module, **how: Any) -> None:
    """The same text gives the same bits again."""
    _assert(model, ("deterministic",), how)
