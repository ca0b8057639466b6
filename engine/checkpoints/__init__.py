"""Checkpoints whose files are not in the form that transformers loads by itself."""
