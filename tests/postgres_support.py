"""A PostgreSQL server of the tests' own: made in a temporary folder, on a port of its own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import URL

USER, PASSWORD = "budgetnet", "not-to-be-shown"
_PATIENCE = 60.0
"""Seconds for a server to answer, or to end."""


def server_programs() -> Path | None:
    """The folder of an installed server's programs: on the path, or the newest where Debian keeps them."""
    on_path = shutil.which("initdb")
    kept = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(kept, key=lambda path: float(path.parents[1].name))[-1:]
    found = [Path(on_path).resolve()] if on_path else newest
    return found[0].parent if found and (found[0].parent / "postgres").exists() else None


def hold_port(port: int = 0) -> socket.socket:
    """Bind a port, by default any free one, without listening: connections are refused and no one else gets it."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held


class PostgresServer:
    """A server that can be stopped and started again; every test has a database of its own there."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="budgetnet-postgres-"))
        self._held, self._databases = hold_port(), 0
        self._port = int(self._held.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {"cwd": self._folder}
        if os.geteuid() == 0:
            # The server refuses to run as root. Only systems that have a root have this module.
            import pwd

            names = [entry.pw_name for entry in pwd.getpwall()]
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options: list[str | Path] = [
            "--username",
            USER,
            "--pwfile",
            secret,
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
        ]
        self._run("initdb", "--pgdata", self._data, "--no-sync", "--locale", "C", *options)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], capture_output=True, text=True, check=False, **self._as
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")

    def start(self) -> None:
        """Starts the server if it is not up, and waits until it answers."""
        if self._process is not None:
            return
        options = {"listen_addresses": "127.0.0.1", "port": self._port, "unix_socket_directories": "", "fsync": "off"}
        arguments = [item for name, value in options.items() for item in ("-c", f"{name}={value}")]
        self._held.close()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *arguments], stdout=log, stderr=log, **self._as
            )
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.execute("postgres", "SELECT 1")
                return
            except Exception:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "log").read_text()[-2000:]) from None
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the server and every connection to it, whatever they are at."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_PATIENCE)
            self._process = None
            self._held = hold_port(self._port)

    def remove(self) -> None:
        """Ends the server and removes all that it kept."""
        self.stop()
        self._held.close()
        shutil.rmtree(self._folder)

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        """Where a database is found, as ``--storage`` takes it."""
        where = URL.create("postgresql+psycopg", USER, password, "127.0.0.1", self._port, database)
        return where.render_as_string(hide_password=False)

    def new_database(self) -> str:
        """Makes an empty database and gives its URL."""
        self._databases += 1
        name = f"test{self._databases}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, database: str, statement: str) -> list[Any]:
        """Executes a statement by itself and gives its rows; ``database`` may be a URL."""
        url = database if "://" in database else self.url(database)
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            result = connection.execute(text(statement))
            return list(result.all()) if result.returns_rows else []
