"""Checkpoints in folders: in transformers' own form, or in one that it does not load by itself."""
