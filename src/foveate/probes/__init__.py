"""Experiments on trained models: what they use of their context, and which words they know."""
