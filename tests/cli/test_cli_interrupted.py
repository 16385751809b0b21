"""Commands that are interrupted: one line, and the exit code of the signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SIGNALS = pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
IN_EXECUTED_TEXT = """
import os, signal, sys
from budgetnet.cli import main

@main.app.command()
def interrupted():
    exec("os.kill(os.getpid(), int(sys.argv[1])); signal.pause()")

sys.exit(main.main(["interrupted"]))
"""


@SIGNALS
@pytest.mark.parametrize("command", ["check", "summary", "train"])
def test_every_command_says_that_it_was_interrupted(
    tmp_path: Path, command: str, sent: signal.Signals, code: int
) -> None:
    """The command waits for the text of a pipe: once it has opened the pipe, it has begun."""
    pipe = tmp_path / "spec.yaml"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [sys.executable, "-m", "budgetnet", command, str(pipe)], stdout=-1, stderr=-1, text=True
    ) as process:
        writer = os.open(pipe, os.O_WRONLY)
        process.send_signal(sent)
        out, err = process.communicate(timeout=120)
        os.close(writer)
    assert (out, err, process.returncode) == ("", "interrupted\n", code)


@SIGNALS
def test_the_exit_code_holds_where_the_interrupt_falls_in_executed_text(sent: signal.Signals, code: int) -> None:
    """As in the body of a named tuple while modules are imported."""
    process = subprocess.run(
        [sys.executable, "-c", IN_EXECUTED_TEXT, str(int(sent))], capture_output=True, text=True, check=False
    )
    assert (process.stderr, process.returncode) == ("interrupted\n", code)
