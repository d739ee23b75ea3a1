"""Where the time of a decoded token goes: in matrix products, in other operations, and between them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

PRODUCT = re.compile(r"(addmm|mm|bmm|baddbmm|mv|linear|_linear_pointwise|gemm)$")
SHOWN = 12  # operations


@dataclass(frozen=True, kw_only=True)
class TokenProfile:
    """The operations of a decoding step on a CPU, per token.

    Attributes:
        products_ms: spent inside matrix products.
        operations_ms: spent inside all operations, as far as the profiler sees them; it slows them down.
        share_outside: of the time of a token, measured without the profiler, what is not in matrix products.
        calls: of operations.
        longest: milliseconds and calls of the operations that take longest.
    """

    products_ms: float
    operations_ms: float
    share_outside: float
    calls: float
    longest: dict[str, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def profile_tokens(decode: Callable[[int], Any], tokens: int, ms_per_token: float) -> TokenProfile:
    """Profile ``decode(tokens)``; ``ms_per_token`` is what a token takes unprofiled."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        decode(tokens)
    own = {
        event.key: (event.self_cpu_time_total / 1e3 / tokens, event.count / tokens) for event in found.key_averages()
    }
    products = sum(ms for name, (ms, _) in own.items() if PRODUCT.search(name))
    longest = sorted(own.items(), key=lambda item: -item[1][0])[:SHOWN]
    return TokenProfile(
        products_ms=products,
        operations_ms=sum(ms for ms, _ in own.values()),
        share_outside=max(0.0, 1 - products / ms_per_token),
        calls=sum(calls for _, calls in own.values()),
        longest=dict(longest),
    )
