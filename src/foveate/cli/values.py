from foveate.values import count, length

__all__ = ["count", "length"]
