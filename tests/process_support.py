"""Commands and programs as real processes that need no start of Python: forked from a server that has loaded torch.

Loading Python, torch and the package takes a fresh process about four seconds of a core; what most tests compute then
takes less. A forked process has memory, signals, output and an exit code of its own. What it cannot show is that a
fresh interpreter loads all that a command needs: tests of that use `subprocess`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Self

AVAILABLE = "forkserver" in multiprocessing.get_all_start_methods()
PRELOADED = "preloaded_modules"


def command_line(arguments: list[str]) -> int:
    from budgetnet.cli.main import main

    return main(arguments)


def python_file(arguments: list[str]) -> int:
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


def python_code(arguments: list[str]) -> int:
    """Run code, which finds the arguments after it as ``sys.argv[1:]``."""
    code, *rest = arguments
    sys.argv = ["-c", *rest]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    return 0


class ForkedProcess:
    """A running command, with the part of the interface of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        function: Callable[[list[str]], int] = command_line,
    ) -> None:
        """Start a function of a list of arguments that returns an exit code: by default the command line."""
        self.args, self.returncode = list(arguments), None
        context = multiprocessing.get_context("forkserver")
        (out, child_out), (err, child_err) = context.Pipe(duplex=False), context.Pipe(duplex=False)
        self._process = context.Process(
            target=_run, args=(function, self.args, str(cwd), dict(environment), child_out, child_err)
        )
        with _server_environment():
            self._process.start()
        child_out.close()
        child_err.close()
        self.pid = self._process.pid or 0
        self.stdout, self.stderr = _as_file(out), _as_file(err)
        self._texts: dict[IO[str], str] = {}
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.communicate()

    args: list[str]
    returncode: int | None
    """The exit code, or the number of the signal that ended it, below zero; None while it runs."""

    def poll(self) -> int | None:
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        if self.poll() is None:
            self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end of the process and return all of its output and errors that is not read yet."""
        if not self._readers:
            for stream in (self.stdout, self.stderr):
                self._readers.append(threading.Thread(target=self._read, args=(stream,), daemon=True))
                self._readers[-1].start()
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(timeout)
        return self._texts[self.stdout], self._texts[self.stderr]

    def _read(self, stream: IO[str]) -> None:
        with stream:
            self._texts[stream] = stream.read()


def _as_file(connection: Connection) -> IO[str]:
    descriptor = os.dup(connection.fileno())
    connection.close()
    return os.fdopen(descriptor, encoding="utf-8")


@contextmanager
def _server_environment() -> Iterator[None]:
    """Set what the server needs, which the first process starts: where its modules lie, and a single thread."""
    here = Path(__file__).parent
    changes = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    before = {name: os.environ.get(name) for name in changes}
    multiprocessing.set_forkserver_preload([PRELOADED])
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(
    function: Callable[[list[str]], int],
    arguments: list[str],
    cwd: str,
    environment: dict[str, str],
    out: Connection,
    err: Connection,
) -> None:
    """Make the forked process like a fresh one, and end it with the exit code of a function."""
    # The server would pass over a module that it does not find, and every process would load everything.
    assert PRELOADED in sys.modules, f"{PRELOADED} could not be loaded"
    for descriptor, connection in ((1, out), (2, err)):
        os.dup2(connection.fileno(), descriptor)
        connection.close()
    # Those of the server belong to other files.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace", buffering=1)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, cwd)
    sys.argv = ["budgetnet", *arguments]
    # Else processes that the command starts by default would be forked from the server as well.
    multiprocessing.set_start_method(None, force=True)
    try:
        code = function(arguments)
    finally:
        atexit._run_exitfuncs()
    sys.exit(code)
