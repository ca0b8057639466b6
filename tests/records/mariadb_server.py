"""A real MariaDB server of the tests' own: temporary folder, free port, gone afterwards."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pymysql

#: How long a server may take to start or stop, in seconds; a loaded machine takes a few.
DEADLINE_SECONDS = 60

DATABASE, USER, PASSWORD = "library", "lectern", "s3cret-pa55"

#: The user may write, so that a refused write is our doing.
FIRST_STATEMENTS = (
    f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4",
    f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
    f"GRANT ALL ON {DATABASE}.* TO '{USER}'@'127.0.0.1'",
)


def find_mariadbd() -> str | None:
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class MariadbServer:
    """Starts and stops a server over one data folder; the port stays the same."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        self._user = ["--user=root"] if os.geteuid() == 0 else []

    @property
    def url(self) -> str:
        return f"mariadb://{USER}:{PASSWORD}@127.0.0.1:{self._port}/{DATABASE}"

    def install(self) -> None:
        """Make the data folder with the database and its user."""
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={self._folder / 'data'}", *self._user]
        options = ["--skip-test-db", "--auth-root-authentication-method=normal"]
        subprocess.run([*install, *options], check=True, capture_output=True, timeout=DEADLINE_SECONDS)
        statements = ";\n".join(FIRST_STATEMENTS)
        (self._folder / "first.sql").write_text(f"{statements};\n", encoding="utf-8")
        self.start(f"--init-file={self._folder / 'first.sql'}")

    def start(self, *options: str) -> None:
        """Start the server and wait until it lets the user in."""
        places = {
            "datadir": self._folder / "data",
            "socket": self._folder / "socket",
            "pid-file": self._folder / "pid",
        }
        command = [self._program, "--no-defaults", *self._user, *(f"--{a}={b}" for a, b in places.items())]
        network = [f"--port={self._port}", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=16M"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, *network, *options], stdout=log, stderr=log)
        end = time.monotonic() + DEADLINE_SECONDS
        while not self._lets_in():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self._folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End the server without notice, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_SECONDS)
            self._process = None

    def execute(self, *statements: str) -> None:
        """Run statements with a connection of their own that may write."""
        with self._connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()

    def _lets_in(self) -> bool:
        try:
            self._connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def _connect(self) -> pymysql.Connection:
        login = {"user": USER, "password": PASSWORD, "database": DATABASE}
        return pymysql.connect(host="127.0.0.1", port=self._port, connect_timeout=5, **login)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
