"""Child processes that run Python with the import path of this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from budgetnet.common.errors import BudgetnetError


def child_environment() -> dict[str, str]:
    """Return the environment of a child process, with this process's ``sys.path``, which programs may extend."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path if isinstance(entry, str))
    return {**os.environ, "PYTHONPATH": path}


def run_python(*arguments: str, stdin: str = "", failure: str) -> str:
    """Run a fresh interpreter and return its standard output.

    Args:
        arguments: command-line arguments of the interpreter.
        stdin: its standard input.
        failure: first part of the error message.

    Raises:
        BudgetnetError: it exits with an error or is killed.
    """
    done = subprocess.run(  # noqa: S603 - this Python
        # -P: the working folder is not on the import path.
        [sys.executable, "-P", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"the process was killed (exit code {done.returncode})"]
        raise BudgetnetError(f"{failure}: {last[0][:500]}")
    return done.stdout
