"""Benchmark of `budgetnet report`: time and size for a study of many trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from budgetnet.bench.interpreter import run_python
from budgetnet.bench.measure import Goal, Spread
from budgetnet.bench.synthetic_study import write_study
from budgetnet.training.devices import describe_environment

GOAL_TRIALS = 1_000
"""Number of trials from which the goals apply."""
_GOAL_SECONDS, _GOAL_BYTES = 10.0, 6_000_000


class ReportBenchmark(NamedTuple):
    """Times and size of reports on one study."""

    environment: dict[str, Any]
    trials: int
    """Completed trials of the study."""
    seconds: list[float]
    """Wall time of the command, for each report."""
    bytes: int
    """Size of the page."""

    @property
    def spread(self) -> Spread:
        """Median, minimum and maximum of the times."""
        return Spread.of(self.seconds)

    @property
    def goals(self) -> list[Goal]:
        """Goals for a study of at least `GOAL_TRIALS` trials."""
        if self.trials < GOAL_TRIALS:
            return []
        return [
            Goal.at_most("time of a report, at most", "seconds", self.spread.median, _GOAL_SECONDS),
            Goal.at_most("size of its page, at most", "bytes", self.bytes, _GOAL_BYTES),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds."""
        return {
            "benchmark": "report",
            "environment": self.environment,
            "trials": self.trials,
            "seconds": self.spread._asdict(),
            "bytes": self.bytes,
            "goals": [goal._asdict() for goal in self.goals],
        }


def run(*, trials: int, repeat: int, progress: Callable[[str], None]) -> ReportBenchmark:
    """Write a synthetic study to a temporary folder and time reports on it, each in a fresh interpreter.

    Args:
        trials: completed trials of the study.
        repeat: number of reports.
        progress: called with a description of each step.

    Raises:
        BudgetnetError: a report fails.
    """
    environment = describe_environment(torch.device("cpu"))
    with TemporaryDirectory(prefix="budgetnet-bench-") as name:
        folder, page = Path(name), Path(name) / "report.html"
        progress(f"writing a study of {trials:,} trials")
        write_study(folder, trials=trials, environment=environment)
        seconds = []
        for number in range(repeat):
            progress(f"report {number + 1} of {repeat}")
            start = time.perf_counter()
            run_python("-m", "budgetnet", "report", "-o", str(page), "--out", str(folder), failure="the report failed")
            seconds.append(time.perf_counter() - start)
        return ReportBenchmark(environment, trials, seconds, page.stat().st_size)
