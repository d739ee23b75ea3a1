"""All promises, in the order in which they are checked and shown. A new one joins by being listed."""

from __future__ import annotations

from foveate.promises.batches import ALONE, LEFT, ORDER, RIGHT
from foveate.promises.caches import CACHED, CHUNKED, CROPPED, REORDERED, SPLIT_GRADIENTS
from foveate.promises.causality import CAUSAL, CAUSAL_GRADIENT, DETERMINISTIC, EMBEDS
from foveate.promises.copies import CHECKPOINTED, COMPILED, RESIZED, SAVED
from foveate.promises.generation import ASSISTED, BEAMS, GENERATED, GENERATED_PADDED, GENERATED_UNCACHED
from foveate.promises.losses import IGNORED_LABELS, LABELS
from foveate.promises.packing import PACKED
from foveate.promises.precision import DRIFT
from foveate.promises.promise import Promise

PROMISES: tuple[Promise, ...] = (
    DETERMINISTIC,
    CAUSAL,
    CAUSAL_GRADIENT,
    EMBEDS,
    ALONE,
    ORDER,
    LEFT,
    RIGHT,
    PACKED,
    CACHED,
    CHUNKED,
    REORDERED,
    CROPPED,
    GENERATED,
    GENERATED_UNCACHED,
    GENERATED_PADDED,
    BEAMS,
    ASSISTED,
    LABELS,
    IGNORED_LABELS,
    SPLIT_GRADIENTS,
    CHECKPOINTED,
    SAVED,
    RESIZED,
    COMPILED,
    DRIFT,
)
BY_NAME = {promise.name: promise for promise in PROMISES}
