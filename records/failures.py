"""Whose fault a database's error is: the query's, or the moment's."""

from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from contract import ServingError

#: SQLite's result codes (sqlite.org/rescode.html) that another moment may not give: BUSY, LOCKED, NOMEM,
#: INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB.
_SQLITE_MOMENTARY = frozenset({5, 6, 7, 9, 10, 11, 13, 14, 15, 26})

#: MariaDB's and MySQL's error numbers of that kind: too many connections, shutdown, lock wait, deadlock,
#: killed query, time limit (MariaDB, MySQL).
_MYSQL_MOMENTARY = frozenset({1040, 1053, 1205, 1213, 1317, 1969, 3024})

#: PostgreSQL's classes of that kind (first two characters of SQLSTATE): connection, rollback, resources,
#: object in use, operator intervention, system.
_POSTGRESQL_MOMENTARY = frozenset({"08", "40", "53", "55", "57", "58"})


class QueryBroken(ServingError):
    """The task's query cannot give its rows; only the operator can mend it."""


def is_momentary(error: SQLAlchemyError) -> bool:
    """Tell whether the same query may work at another moment."""
    if not isinstance(error, DBAPIError):
        return True
    return error.connection_invalidated or _has_momentary_code(error.orig)


def reason(error: SQLAlchemyError) -> str:
    """Return the database's own words, on one line, without the query and its address."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    words = cause.args[-1] if cause is not None and cause.args else type(error).__name__
    return " ".join(str(words).split())


def _has_momentary_code(cause: Any) -> bool:
    """Look at the code that the driver's error carries; psycopg's has none when the connection is gone."""
    if (sqlite_code := getattr(cause, "sqlite_errorcode", None)) is not None:
        return sqlite_code & 0xFF in _SQLITE_MOMENTARY
    if hasattr(cause, "sqlstate"):
        return cause.sqlstate is None or cause.sqlstate[:2] in _POSTGRESQL_MOMENTARY
    return bool(cause.args) and cause.args[0] in _MYSQL_MOMENTARY
