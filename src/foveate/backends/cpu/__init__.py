"""What is fast on CPUs where PyTorch is not: behind this door, and nowhere else.

``attend`` is used for every tensor on a CPU. Linear layers are left as they are until ``accelerate`` is asked to; a
model can be packed for decoding for good (``packing``). A compiler, a dispatch mode and functorch's transforms meet
plain PyTorch. (Measured on an AMD EPYC; on Intel's CPUs MKL does better than what is assumed here.)
"""

from foveate.backends.cpu.attention import attend, is_for, is_for_compiled
from foveate.backends.cpu.linear import accelerate, decelerate

__all__ = ["accelerate", "attend", "decelerate", "is_for", "is_for_compiled"]
