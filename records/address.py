"""Which database a URL means, and how each kind is opened: read-only and with deadlines."""

import math
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

#: What a URL begins with -> SQLAlchemy's name for it with the driver that is installed.
DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "mariadb": "mariadb+pymysql",
    "mysql": "mysql+pymysql",
    "postgresql": "postgresql+psycopg",
}

#: Connections kept open to a server, and those opened on top of them while many tasks read at once.
POOL_CONNECTIONS, POOL_OVERFLOW = 4, 12


def parse_address(url: str) -> URL:
    """Read a database URL; raises ValueError with the rule, without the URL: it may hold a password."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise ValueError("database: must be a URL such as mariadb://user:password@host/library") from None
    driver = DRIVERS.get(address.get_backend_name())
    if driver is None or address.drivername not in (address.get_backend_name(), driver):
        known = ", ".join(f"{name}://" for name in DRIVERS)
        raise ValueError(f"database: must begin with one of {known}, not {address.drivername}://")
    if driver.startswith("sqlite") and (address.query or address.database in (None, "", ":memory:")):
        raise ValueError("database: an SQLite URL is sqlite:///path/of/the/file and nothing else")
    return address.set(drivername=driver)


def label(address: URL) -> str:
    """Name a database without user, password or options, for messages and logs."""
    kind = address.get_backend_name()
    if kind == "sqlite":
        return f"SQLite file {address.database}"
    port = f":{address.port}" if address.port else ""
    return f"{kind} database {address.database or ''} at {address.host or 'localhost'}{port}"


def open_engine(address: URL, connect_seconds: float, read_seconds: float, max_rows: int) -> Engine:
    """Return an engine that connects when first used and whose every transaction is read-only.

    Of a result longer than `max_rows`, one row more reaches this process, so that the excess shows.
    """
    match address.get_backend_name():
        case "sqlite":
            return _open_sqlite(Path(str(address.database)), read_seconds)
        case "postgresql":
            arguments = _postgresql_arguments(connect_seconds, read_seconds)
            return _open_server(address, connect_seconds, arguments).execution_options(stream_results=True)
        case _:
            return _open_mariadb(address, connect_seconds, read_seconds, max_rows)


def _open_server(address: URL, connect_seconds: float, arguments: dict[str, Any]) -> Engine:
    return create_engine(
        address,
        connect_args=arguments,
        pool_pre_ping=True,
        pool_size=POOL_CONNECTIONS,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=connect_seconds,
        hide_parameters=True,
    )


def _open_mariadb(address: URL, connect_seconds: float, read_seconds: float, max_rows: int) -> Engine:
    arguments = {
        "connect_timeout": connect_seconds,
        "read_timeout": read_seconds,
        "write_timeout": read_seconds,
    }
    engine = _open_server(address, connect_seconds, arguments)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            # START TRANSACTION READ ONLY would let CREATE and DROP through: they end that transaction first.
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
            # pymysql fetches a result whole before it hands out the first row.
            cursor.execute(f"SET SESSION sql_select_limit = {max_rows + 1}")

    return engine


def _open_sqlite(path: Path, read_seconds: float) -> Engine:
    """Open the file anew for each snapshot, so that a file put in its place is seen."""
    uri = f"{path.absolute().as_uri()}?mode=ro"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=read_seconds)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)


def _postgresql_arguments(connect_seconds: float, read_seconds: float) -> dict[str, Any]:
    """Deadlines of libpq and of the server; keepalives notice a server that vanished while it was read."""
    limits = f"-c statement_timeout={math.ceil(read_seconds * 1000)} -c default_transaction_read_only=on"
    return {
        "connect_timeout": math.ceil(connect_seconds),
        "options": limits,
        "keepalives_idle": math.ceil(read_seconds),
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": math.ceil(read_seconds * 1000),
    }
