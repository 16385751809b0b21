"""The command line as a process: pipes that break, terminals, and silence where there is none."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from support import PAIR_SPACE, TINY, child_environment, finished, tiny_recipe, write_space

from budgetnet.training.progress import VERBOSITY_VARIABLE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TINY.save(tmp_path / "spec.yaml")
    tiny_recipe().save(tmp_path / "recipe.yaml")
    write_space(tmp_path / "space.yaml", PAIR_SPACE)
    return tmp_path


SMALL = ["--recipe", "recipe.yaml", "--train-size", "64", "--validation-size", "40"]
TRAIN = ["train", "spec.yaml", *SMALL]
SEARCH = ["search", "--space", "space.yaml", "--trials", "1", *SMALL]


@pytest.mark.parametrize(
    ("arguments", "code", "complaints"),
    [
        (["specs"], 0, 0),
        (["check", "reference", "--max-params", "5M"], 0, 0),
        (["check", "reference", "--max-params", "1M"], 3, 0),
        (["check", "nonsense"], 2, 1),
        (["leaderboard"], 2, 1),
    ],
)
def test_the_module_is_the_command(folder: Path, arguments: list[str], code: int, complaints: int) -> None:
    answer = finished(*arguments, cwd=folder, fresh=True)
    assert (answer.returncode, answer.stderr.count("\n")) == (code, complaints)
    assert bool(answer.stdout) is not bool(complaints)


@pytest.mark.parametrize(
    "arguments", [["specs"], ["specs", "--json"], ["schema"], ["--help"], ["summary", "reference"]]
)
def test_a_reader_that_has_gone_is_no_reason_to_complain(folder: Path, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "budgetnet", *arguments],
        cwd=folder,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    os.close(writer)
    _, complaint = process.communicate(timeout=120)
    assert complaint == ""
    # As a shell reports a program that the signal SIGPIPE ended.
    assert process.returncode == 141


@pytest.mark.parametrize("arguments", [["check", "nonsense"], TRAIN])
def test_a_reader_of_messages_that_has_gone_is_no_reason_to_complain(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.delenv(VERBOSITY_VARIABLE)
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "budgetnet", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
        env=child_environment(),
    )
    os.close(writer)
    process.communicate(timeout=120)
    assert process.returncode == 141


def in_a_terminal(folder: Path, arguments: list[str]) -> tuple[int, str, str]:
    """Runs the command with a terminal as its standard error: exit code, standard output, what the terminal shows."""
    ours, theirs = pty.openpty()
    shown = b""
    environment = {**child_environment(), "TERM": "xterm", "COLUMNS": "120"}
    with (folder / "stdout").open("w+") as stdout:
        command = [sys.executable, "-m", "budgetnet", *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=theirs, env=environment)
        os.close(theirs)
        while True:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    piece = os.read(ours, 65_536)
                except OSError:  # the other end is closed
                    break
                if not piece:
                    break
                shown += piece
        os.close(ours)
        code = process.wait(timeout=60)
        stdout.seek(0)
        return code, stdout.read(), shown.decode()


@pytest.mark.parametrize(
    ("arguments", "bar", "line"),
    [
        (TRAIN, "basic-8x1 · ", "epoch 1 of 2: "),
        pytest.param(SEARCH, "trials · ", "1 of 1 trials · ", marks=pytest.mark.slow),
    ],
)
def test_progress_is_bars_in_a_terminal_and_lines_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], bar: str, line: str
) -> None:
    monkeypatch.delenv(VERBOSITY_VARIABLE)
    code, stdout, shown = in_a_terminal(folder, [*arguments, "--out", "first"])
    assert code == 0
    assert bar in shown
    assert "\x1b" in shown
    assert "\x1b" not in stdout
    elsewhere = finished(*arguments, "--out", "second", cwd=folder)
    assert elsewhere.returncode == 0
    assert "\x1b" not in elsewhere.stderr
    assert any(each.startswith(line) for each in elsewhere.stderr.splitlines())
    quiet = finished(*arguments, "--out", "third", "--quiet", cwd=folder)
    assert (quiet.returncode, quiet.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    command = f'"{sys.executable}" -m budgetnet check reference --max-params 5M {closed}'
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert told.returncode == 0
    assert "Traceback" not in told.stdout + told.stderr


@pytest.mark.slow
def test_a_run_that_is_done_says_that_it_answers_from_its_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VERBOSITY_VARIABLE)
    first, again = (in_a_terminal(folder, TRAIN) for _ in range(2))
    assert (first[:2], first[0]) == (again[:2], 0)
    assert "already trained" not in first[2]
    assert "already trained: showing the stored result" in again[2]
