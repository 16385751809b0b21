"""Progress bars in a terminal: one for the runs of a search or batch, one per worker for the epochs of its run."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from budgetnet.common.formatting import percent, short_count
from budgetnet.data import DataSet, load_dataset
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Callback, RunInfo


def load_with_progress(name: str) -> DataSet:
    """Load a data set by name, with a progress bar in a terminal while an image folder is decoded.

    Raises:
        DataError: the name is unknown, or the data set is missing or damaged.
    """
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bars:
        task = bars.add_task(f"loading {name}", total=None)
        return load_dataset(name, progress=lambda done, of: bars.update(task, completed=done, total=of))


class TerminalProgress(Callback):
    """Progress bars of a run, a batch of runs or a search on standard error; hidden if that is not a terminal."""

    def __init__(self, *, candidates: int | None = None, runs: int | None = None) -> None:
        """Create the bars.

        Args:
            candidates: number of candidates that a search trains.
            runs: number of runs in a batch; not together with ``candidates``.
        """
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._search = None
        self._is_batch = runs is not None
        if candidates is not None or runs is not None:
            self._search = self._bars.add_task("runs" if self._is_batch else "candidates", total=candidates or runs)
        self._runs: dict[int, TaskID] = {}
        """Progress bar of each worker."""
        self._labels: dict[int, str] = {}
        self._rejected = self._pruned = 0
        self._best: float | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def on_trial_rejected(self, *, worker: int) -> None:  # noqa: ARG002 - counted over all workers
        """Count a rejected trial."""
        self._rejected += 1
        self._describe_search()

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        """Reset the worker's bar for a new run."""
        if self._search is not None:
            self._bars.update(self._search, completed=run.context.trained)
        self._labels[worker] = f"{run.label[:40]} · {short_count(run.params)} parameters"
        if worker not in self._runs:
            self._runs[worker] = self._bars.add_task("", total=run.epochs)
        self._bars.reset(
            self._runs[worker],
            total=run.epochs,
            completed=len(run.curves),
            description=self._labels[worker],
            visible=True,
        )

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
        """Update the bar within an epoch."""
        self._bars.update(self._runs[worker], completed=round(epoch - 1 + share, 1))

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        """Show the epoch's validation accuracy."""
        description = f"{self._labels[worker]} · {percent(epoch.validation_accuracy)} %"
        self._bars.update(self._runs[worker], completed=epoch.epoch, description=description)

    def on_run_end(self, result: RunResult, *, worker: int) -> None:  # noqa: ARG002 - counted over all workers
        """Advance the bar of the search or batch."""
        if result.status == "complete" and result.validation_accuracy is not None:
            self._best = max(self._best or 0.0, result.validation_accuracy)
        self._pruned += result.status == "stopped"
        if self._search is not None:
            self._bars.advance(self._search)
            self._describe_search()

    def _describe_search(self) -> None:
        if self._search is not None and not self._is_batch:
            best = "" if self._best is None else f" · best {percent(self._best)} %"
            description = f"candidates{best} · {self._pruned} pruned · {self._rejected} over budget"
            self._bars.update(self._search, description=description)
