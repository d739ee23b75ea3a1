"""Training, and what a trained model is used for first: scoring text and writing it."""
