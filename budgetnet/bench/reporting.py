"""How long a report takes, and how large it is, for a study of many candidates."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from budgetnet.bench.measure import Goal
from budgetnet.bench.synthetic_study import STUDY, write_study
from budgetnet.common.errors import BudgetnetError
from budgetnet.training.devices import describe_environment

GOAL_TRIALS = 1_000
"""Candidates that the goals are for."""
_GOAL_SECONDS, _GOAL_BYTES = 10.0, 6_000_000
_PROGRAM = """
import sys
sys.path[:] = sys.argv[3:]
from budgetnet.cli.main import main
sys.exit(main(["report", "-o", sys.argv[2], "--out", sys.argv[1]]))
"""
"""A fresh interpreter's part. With the caller's path for imports, as programs may have lengthened theirs."""


class ReportBenchmark(NamedTuple):
    """Reports of one study, made one behind the other."""

    environment: dict[str, Any]
    trials: int
    """Candidates of the study, all of them ranked."""
    seconds: list[float]
    """From the command to its end, for each report."""
    bytes: int
    """Size of the page."""

    @property
    def median(self) -> float:
        """Median time of a report."""
        return statistics.median(self.seconds)

    @property
    def goals(self) -> list[Goal]:
        """What a report is to show, where the study is as large as that is said for."""
        if self.trials < GOAL_TRIALS:
            return []
        return [
            Goal("a report, at most", "seconds", self.median, _GOAL_SECONDS, self.median <= _GOAL_SECONDS),
            Goal("its page, at most", "bytes", self.bytes, _GOAL_BYTES, self.bytes <= _GOAL_BYTES),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """The benchmark as plain data; times in seconds."""
        return {
            "benchmark": "report",
            "environment": self.environment,
            "trials": self.trials,
            "seconds": {"median": self.median, "minimum": min(self.seconds), "maximum": max(self.seconds)},
            "bytes": self.bytes,
            "goals": [goal._asdict() for goal in self.goals],
        }


def run(*, trials: int, repeat: int, progress: Callable[[str], None]) -> ReportBenchmark:
    """Writes a study in a temporary folder, and makes its report in fresh interpreters, one behind the other.

    Args:
        trials: candidates of the study, invented and all trained to their ends.
        repeat: how many reports.
        progress: is told what is being done.

    Raises:
        BudgetnetError: no report was made.
    """
    environment = describe_environment(torch.device("cpu"))
    with TemporaryDirectory(prefix="budgetnet-bench-") as name:
        folder = Path(name)
        progress(f"writing a study {STUDY} of {trials:,} candidates")
        write_study(folder, trials=trials, environment=environment)
        seconds = []
        for number in range(repeat):
            progress(f"report {number + 1} of {repeat}")
            seconds.append(_report(folder))
        size = (folder / "report.html").stat().st_size
    return ReportBenchmark(environment, trials, seconds, size)


def _report(folder: Path) -> float:
    path = [entry for entry in sys.path if isinstance(entry, str)]
    # -P, or the working folder could slip modules of its own beneath the first imports.
    command = [sys.executable, "-P", "-c", _PROGRAM, str(folder), str(folder / "report.html"), *path]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this Python
    taken = time.perf_counter() - began
    if done.returncode:
        complaint = done.stderr.strip().splitlines()[-1:] or [f"it was ended from outside ({done.returncode})"]
        raise BudgetnetError(f"no report was made: {complaint[0][:500]}")
    return taken
