"""Continuous batching: many answers grow in one batch, each step computing what each has waiting."""
