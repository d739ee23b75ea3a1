"""Foveate as a citizen of the Hugging Face stack."""
