import os
import shutil
import socket
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.records.mariadb_server import MariadbServer, find_mariadbd
from tests.records.postgresql_server import PostgresqlServer, find_programs


@pytest.fixture
def catalogue(tmp_path):
    """An SQLite file with three books, and a way to write to it."""
    path = tmp_path / "catalogue.db"

    def write(*statements):
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    write(
        "CREATE TABLE book (id INTEGER PRIMARY KEY, title CHAR(255))",
        "INSERT INTO book VALUES (3, 'Optics'), (1, 'Calculus'), (2, 'Algebra')",
    )
    write.path = path
    write.url = f"sqlite:///{path}"
    return write


@pytest.fixture
def unused_port():
    """A port on which nobody listens: it is bound, so nobody else can take it, and refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(scope="session")
def mariadb():
    """A real MariaDB server, started once; where CI promises one, its lack is a failure."""
    program = find_mariadbd()
    if program is None:
        reason = "mariadbd is not installed (Debian package mariadb-server)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="lectern-mariadb-"))  # short: a socket's path has 107 bytes
    server = MariadbServer(program, folder)
    try:
        server.install()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql():
    """A real PostgreSQL server, started once where one is installed."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="lectern-postgresql-"))
    server = PostgresqlServer(programs, folder)
    try:
        server.install()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)
