"""What is said about a task file that cannot work."""

from pathlib import Path


class TaskFileError(Exception):
    """A task file cannot work: which file, which field (dotted, "" for the whole file), and why."""

    def __init__(self, file: Path, field: str, reason: str) -> None:
        super().__init__(": ".join(part for part in (str(file), field, reason) if part))
        self.file = file
        self.field = field
        self.reason = reason
