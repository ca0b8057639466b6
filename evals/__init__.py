"""Measurements of what answers are worth."""
