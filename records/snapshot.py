"""The rows that a query gave at one moment."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from msgspec import Struct

from contract import FoundRow
from records.failures import QueryBroken
from records.values import to_scalar, to_text


class Snapshot(Struct, frozen=True):
    """All rows of a query, in its order, as they were at one moment."""

    columns: tuple[str, ...]
    rows: tuple[FoundRow, ...]

    @classmethod
    def build(cls, columns: Sequence[str], records: Sequence[Sequence[Any]], key: str) -> Self:
        """Make rows of what a driver returned; raises QueryBroken if `key` does not tell them apart."""
        if twice := [name for name, times in Counter(columns).items() if times > 1]:
            raise QueryBroken(f"the task's query gives two columns named {twice[0]!r}")
        _check_column(key, columns)
        fields = [dict(zip(columns, map(to_scalar, record), strict=True)) for record in records]
        rows = tuple(FoundRow(row[key], row) for row in fields)
        for value, times in Counter(row.key for row in rows).items():
            if value is None:
                raise QueryBroken(f"the key {key!r} of the task's query is NULL in {times} row(s)")
            if times > 1:
                raise QueryBroken(f"the key {key!r} of the task's query is {value!r} in {times} rows")
        return cls(tuple(columns), rows)

    def having(self, column: str) -> Self:
        """Keep the rows that have something in the column: neither NULL nor empty text."""
        _check_column(column, self.columns)
        return type(self)(self.columns, tuple(row for row in self.rows if to_text(row.fields[column])))

    def by_text(self, column: str) -> dict[str, list[FoundRow]]:
        """Return each distinct text of the column, in the order of the rows, with the rows that have it."""
        _check_column(column, self.columns)
        found: dict[str, list[FoundRow]] = {}
        for row in self.rows:
            found.setdefault(to_text(row.fields[column]), []).append(row)
        return found

    def holds(self, row: FoundRow, column: str) -> bool:
        """Tell whether a row of that key is here with the same value in the column."""
        return any(mine.key == row.key and mine.fields[column] == row.fields[column] for mine in self.rows)


def _check_column(column: str, columns: Sequence[str]) -> None:
    if column not in columns:
        raise QueryBroken(f"the task's query gives no column {column!r}, only {', '.join(columns)}")
