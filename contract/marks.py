"""Marks that stand in texts for what cannot be written there."""

#: What Yuan models write, and what it means.
YUAN_MARKS = {"<unk>": "", "<eod>": "", "<n>": "\n", "▃": "\n", "▂": " "}
