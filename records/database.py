"""The one way to a database: a URL in, snapshots out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from contract import DatabaseDown
from records.address import label, open_engine, parse_address
from records.failures import QueryBroken, is_momentary, reason
from records.snapshot import Snapshot

#: Most rows that a query may give: far above what fits any model's context, far below what fills memory.
MAX_ROWS = 100_000

#: Longest wait for a connection, in seconds: a server on the network answers in milliseconds or not at all.
CONNECT_SECONDS = 5.0

#: Longest wait for a server's next words (for SQLite: for a lock), in seconds.
READ_SECONDS = 10.0


class Database:
    """A database that is read and never written: SQLite, MariaDB, MySQL or PostgreSQL.

    Connects when first read, and again after the server was away. Safe to use from many threads at once.
    """

    def __init__(
        self,
        url: str,
        *,
        max_rows: int = MAX_ROWS,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """Raise ValueError if the URL is none; whether the database answers shows at the first snapshot."""
        self._address = parse_address(url)
        self._engine = open_engine(self._address, connect_seconds, read_seconds, max_rows)
        self._max_rows = max_rows

    @property
    def label(self) -> str:
        """Which database it is, without user and password."""
        return label(self._address)

    def snapshot(self, query: str, key: str) -> Snapshot:
        """Read all rows of a SELECT in one read-only transaction; `key` is the column that tells them apart.

        Raises DatabaseDown if the database does not answer now, QueryBroken if the query cannot work.
        """
        with self._connection() as connection:
            try:
                columns, records = self._read(connection, query)
            except SQLAlchemyError as error:
                raise self._explain(error) from error
        return Snapshot.build(columns, records, key)

    def complaint_about(self, query: str, key: str, column: str) -> str | None:
        """Try a task's query and say why it does not work, or None; a worker's start logs it and goes on."""
        try:
            self.snapshot(query, key).having(column)
        except (DatabaseDown, QueryBroken) as error:
            return str(error)
        return None

    def close(self) -> None:
        """Close the connections that wait for another snapshot."""
        self._engine.dispose()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Lend a connection, on which a transaction begins with the first statement and is rolled back."""
        try:
            connection = self._engine.connect()
        except SQLAlchemyError as error:
            raise self._down(error) from error
        with connection:
            yield connection

    def _read(self, connection: Connection, query: str) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        # Without parameters '%' and ':' in a query mean themselves.
        with connection.execution_options(no_parameters=True).exec_driver_sql(query) as result:
            if not result.returns_rows:
                raise QueryBroken("the task's query gives no rows, it is not a SELECT")
            records = result.fetchmany(self._max_rows + 1)
            if len(records) > self._max_rows:
                raise QueryBroken(f"the task's query gives more than {self._max_rows} rows")
            return tuple(result.keys()), records

    def _explain(self, error: SQLAlchemyError) -> DatabaseDown | QueryBroken:
        if is_momentary(error):
            return self._down(error)
        return QueryBroken(f"the task's query does not work in the {self.label}: {reason(error)}")

    def _down(self, error: SQLAlchemyError) -> DatabaseDown:
        words = reason(error)
        if self._address.password:
            words = words.replace(str(self._address.password), "***")
        return DatabaseDown(f"the {self.label} does not answer: {words}")
