"""Commands run at the lowest priority; a command ends with the runner, however the runner ends."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_PATIENCE = 60.0
"""Seconds that an interrupted command has to end by itself."""
_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG in Linux's prctl.h."""


def lowest_priority() -> list[str]:
    """Give the words in front of a command that lower its priority, as far as the system has them.

    The idle class of Linux's scheduler runs only where no other process wants the core; `nice` holds elsewhere.
    """
    nice = ["nice", "-n", "19"] if shutil.which("nice") else []
    chrt = ["chrt", "--idle", "0"]
    idle = shutil.which("chrt") is not None and (
        subprocess.run([*chrt, "true"], capture_output=True, check=False).returncode == 0  # noqa: S603 - no shell
    )
    return [*nice, *(chrt if idle else [])]


def command_line(argv: Sequence[str]) -> list[str]:
    """Put this Python in place of the words ``budgetnet`` and ``python`` at the beginning of a command."""
    programs = {"budgetnet": [sys.executable, "-m", "budgetnet"], "python": [sys.executable]}
    return [*programs.get(argv[0], [argv[0]]), *argv[1:]]


def run_command(argv: Sequence[str], *, checkout: Path, stdout: IO[bytes], log: IO[bytes], idle: bool) -> int:
    """Run a command in a checkout, with the code of that checkout; give its exit code, as the shell has it.

    Args:
        argv: the command.
        checkout: folder in which it is run.
        stdout: where its standard output goes.
        log: where its standard error goes.
        idle: whether it is run at the lowest priority.

    Raises:
        KeyboardInterrupt: the runner was told to end; the command was ended first.
        OSError: the program cannot be started.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(  # noqa: S603 - no shell
        [*(lowest_priority() if idle else []), *command_line(argv)],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=log,
        # A session of its own: out of reach of the terminal's Ctrl-C, and with a priority of its own where sessions
        # share cores evenly.
        start_new_session=True,
        preexec_fn=_prepare,  # noqa: PLW1509 - the runner has one thread
    )
    if idle:
        with suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text("19")
    try:
        code = process.wait()
    except BaseException:
        _end(process)
        raise
    return code if code >= 0 else 128 - code


def _prepare() -> None:
    """Prepare the new process: it can be interrupted, and on Linux it is killed when the runner is."""
    # Ignored where the runner was started in the background of a shell.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a command and what it started, and kill them where that does not help."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
                return
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
