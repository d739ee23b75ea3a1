"""The core, on PyTorch alone: a causal map from token embeddings to features, built from a walk."""
