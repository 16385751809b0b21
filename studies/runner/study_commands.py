"""Subprocesses at the lowest priority, which are killed if the runner is killed."""

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

_EXIT_TIMEOUT = 60.0
"""Seconds for an interrupted command to exit before it is killed."""
_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG in Linux's prctl.h."""


def lowest_priority() -> list[str]:
    """Return a command prefix that lowers the priority, as far as the system supports it.

    Linux's scheduling class SCHED_IDLE runs only on cores that are otherwise idle; elsewhere `nice` is used.
    """
    nice = ["nice", "-n", "19"] if shutil.which("nice") else []
    chrt = ["chrt", "--idle", "0"]
    idle = shutil.which("chrt") is not None and (
        subprocess.run([*chrt, "true"], capture_output=True, check=False).returncode == 0  # noqa: S603 - no shell
    )
    return [*nice, *(chrt if idle else [])]


def command_line(argv: Sequence[str]) -> list[str]:
    """Replace ``budgetnet`` and ``python`` at the start of a command by this Python."""
    programs = {"budgetnet": [sys.executable, "-m", "budgetnet"], "python": [sys.executable]}
    return [*programs.get(argv[0], [argv[0]]), *argv[1:]]


def run_command(
    argv: Sequence[str], *, checkout: Path, stdout: IO[bytes], log: IO[bytes], idle: bool, threads: int
) -> int:
    """Run a command with the code of a checkout; return its exit code, 128 + n if signal n killed it.

    Args:
        argv: the command.
        checkout: working folder.
        stdout: file for its standard output.
        log: file for its standard error.
        idle: whether it runs at the lowest priority.
        threads: number of threads of a training.

    Raises:
        KeyboardInterrupt: the runner was interrupted; the command has been stopped.
        OSError: the program cannot be started.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(  # noqa: S603 - no shell
        [*(lowest_priority() if idle else []), *command_line(argv)],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=log,
        # A new session: not reached by the terminal's Ctrl-C, and with its own autogroup, whose priority is set below.
        start_new_session=True,
        preexec_fn=_prepare,  # noqa: PLW1509 - the runner has one thread
    )
    if idle:
        with suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text("19")
    try:
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    return code if code >= 0 else 128 - code


def _prepare() -> None:
    """Prepare the new process: SIGINT interrupts it, and on Linux it is killed if the runner is killed."""
    # A shell starts background processes with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a command and its child processes, and kill them if they do not exit."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_EXIT_TIMEOUT)
                return
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
