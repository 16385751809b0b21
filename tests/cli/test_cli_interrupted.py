"""Commands that are interrupted: one line, and the exit code of the signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SIGNALS = pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
PROGRAM = """
import os, signal, sys
from budgetnet.cli import main
from budgetnet.cli.termination import interruption

@main.app.command()
def interrupted():
    {body}

sys.exit(main.main(["interrupted"]))
"""
IN_EXECUTED_TEXT = """
    exec("os.kill(os.getpid(), int(sys.argv[1])); signal.pause()")
"""
# What is made of an interrupt in the import of a module that was compiled with pybind11.
TURNED = """
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        signal.pause()
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error
"""
# What is made of an interrupt in the body of a class, in Python 3.11, while a storage's driver is imported.
TRANSLATED = """
    from budgetnet.common.errors import RecordError
    try:
        try:
            os.kill(os.getpid(), int(sys.argv[1]))
            signal.pause()
        except KeyboardInterrupt as error:
            raise RuntimeError("Error calling __set_name__") from error
    except RuntimeError as error:
        raise RecordError("storage", "studies.db", str(error)) from None
"""
TURNED_WITH_A_NOTE = TURNED.replace("\n    ", "\n        ").replace(
    "\n", "\n    with interruption('as a note says'):\n", 1
)


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
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (IN_EXECUTED_TEXT, "interrupted"),
        (TURNED, "interrupted"),
        (TRANSLATED, "interrupted"),
        (TURNED_WITH_A_NOTE, "interrupted: as a note says"),
    ],
    ids=["executed text", "another exception", "an error of ours", "another exception, with a note"],
)
def test_an_interrupt_is_known_wherever_it_falls(body: str, said: str, sent: signal.Signals, code: int) -> None:
    """Text is executed as in the body of a named tuple while modules are imported."""
    program = PROGRAM.format(body=body)
    process = subprocess.run(
        [sys.executable, "-c", program, str(int(sent))], capture_output=True, text=True, check=False
    )
    assert (process.stderr, process.returncode) == (f"{said}\n", code)


def test_what_fails_after_an_interrupt_is_said() -> None:
    body = """
    from budgetnet.common.errors import RecordError
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        raise RecordError("storage", "studies.db", "cannot be reached")
"""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True, check=False
    )
    assert (process.stderr, process.returncode) == ("error: storage = 'studies.db': cannot be reached\n", 2)
