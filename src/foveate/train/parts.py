"""Parts of a model by patterns: which of its parameters train, and which stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from foveate.errors import FoveateError
from foveate.model.resample import Downsample, Upsample
from foveate.train.combinations import read_stages
from foveate.train.settings import TrainSettings

MOVES, EMBEDDING = "moves", "embedding"
SHOWN_NAMES = 3


def parts_to_train(model: nn.Module, settings: TrainSettings) -> tuple[set[str], list[tuple[int, set[str]]]]:
    """Names of the parameters that train at all; and of those that do until the last step of each stage.

    Raises:
        FoveateError: a pattern that means nothing; nothing that is left to train.
    """
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    names = learning - matching(model, settings.freeze, "--freeze")
    if not names:
        raise FoveateError(f"--freeze: {' '.join(settings.freeze)} leaves nothing to train")
    stages = [(last, names & matching(model, patterns, "--stages")) for last, patterns in read_stages(settings)]
    if not all(trained for _, trained in stages):
        raise FoveateError("--stages: all that one of them is to train is frozen; leave it out, or out of --freeze")
    return names, stages


def matching(model: nn.Module, patterns: Sequence[str], flag: str) -> set[str]:
    """Names of the parameters that one of ``patterns`` means: a name with ``*``, ``moves`` or ``embedding``.

    Raises:
        FoveateError: a pattern that means none, with the ``flag`` that gave it.
    """
    names = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for pattern in patterns:
        meant = {name for name in names if fnmatchcase(name, pattern)} | _meant_by_word(model, pattern)
        if not meant:
            some = ", ".join([*names[:SHOWN_NAMES], "..."])
            raise FoveateError(f"{flag}: no parameter matches {pattern!r}; there are {some}, and moves, embedding")
        found |= meant
    return found


def _meant_by_word(model: nn.Module, word: str) -> set[str]:
    kinds = {MOVES: (Downsample, Upsample), EMBEDDING: (nn.Embedding,)}.get(word, ())
    inside = {
        id(parameter) for module in model.modules() if isinstance(module, kinds) for parameter in module.parameters()
    }
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside}


def train_only(model: nn.Module, names: set[str]) -> None:
    """Gradients are computed for the parameters of these names alone."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        parameter.grad = None
