"""A real PostgreSQL server of the tests' own: temporary folder, free port, gone afterwards."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import psycopg

#: How long a server may take to start or stop, in seconds.
DEADLINE_SECONDS = 60

PASSWORD = "s3cret-pa55"


def find_programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, which Debian keeps out of PATH."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


class PostgresqlServer:
    """Starts and stops a server over one data folder; the port stays the same."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"postgresql://lectern:{PASSWORD}@127.0.0.1:{self._port}/postgres"

    def install(self) -> None:
        """Make the data folder; the user may write, so that a refused write is our doing."""
        (self._folder / "password").write_text(PASSWORD, encoding="utf-8")
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres")
        login = ["--auth=scram-sha-256", "--username=lectern", f"--pwfile={self._folder / 'password'}"]
        self._run("initdb", "--no-sync", "--encoding=UTF8", *login)

    def start(self) -> None:
        options = f"-p {self._port} -h 127.0.0.1 -k {self._folder} -F"
        self._run("pg_ctl", "start", "-w", "-o", options, "-l", str(self._folder / "log"))

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def execute(self, *statements: str) -> None:
        """Run statements with a connection of their own that may write."""
        with psycopg.connect(self.url, connect_timeout=5) as connection:
            for statement in statements:
                connection.execute(statement)

    def _run(self, program: str, *options: str) -> None:
        user = "postgres" if os.geteuid() == 0 else None
        command = [str(self._programs / program), "-D", str(self._data), *options]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self._folder}
        subprocess.run(command, check=True, timeout=DEADLINE_SECONDS, user=user, **quiet)
