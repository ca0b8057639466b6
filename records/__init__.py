"""What tasks may read: rows of the operator's own database, read-only and one snapshot at a time."""

from records.database import Database
from records.failures import QueryBroken
from records.snapshot import Snapshot

__all__ = ["Database", "QueryBroken", "Snapshot"]
