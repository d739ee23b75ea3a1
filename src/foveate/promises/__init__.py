"""What causal language models promise, and whether a model keeps it: ``foveate.check``."""
