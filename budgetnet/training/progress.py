"""Progress of runs, batches and searches on standard error: bars in a terminal or notebook, lines in logs."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, cast, get_args

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from budgetnet.common.errors import InputError
from budgetnet.common.formatting import count_of, duration, percent, short_count
from budgetnet.data import DataSet, load_dataset
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Callback, RunInfo
from budgetnet.training.work import Work

Verbosity = Literal["quiet", "normal", "verbose"]
"""How much progress is shown: nothing; bars, or a line for each run and now and then for an epoch; every epoch too."""

VERBOSITY_VARIABLE = "BUDGETNET_VERBOSITY"
"""Environment variable with the verbosity of commands and functions that are not told one."""

LINE_INTERVAL = 60.0
"""Least seconds between two lines on the epochs of a run, unless every epoch is shown."""


@contextmanager
def counting(label: str, *, verbosity: Verbosity | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show a bar in a terminal while something is counted; yield the function that takes (done, total).

    Args:
        label: text before the bar.
        verbosity: whether to show it; see `showing`.

    Raises:
        InputError: the environment names no verbosity.
    """
    hidden = chosen_verbosity(verbosity) == "quiet" or not sys.stderr.isatty()
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, of: bars.update(task, completed=done, total=of)


def load_with_progress(name: str, *, verbosity: Verbosity | None = None) -> DataSet:
    """Load a data set by name, with a progress bar in a terminal while an image folder is decoded.

    Args:
        name: name of the data set.
        verbosity: whether to show the bar; see `showing`.

    Raises:
        DataError: the name is unknown, or the data set is missing or damaged.
        InputError: the environment names no verbosity.
    """
    with counting(f"loading {name}", verbosity=verbosity) as progress:
        return load_dataset(name, progress=progress)


def chosen_verbosity(verbosity: Verbosity | None) -> Verbosity:
    """Return a verbosity, by default that of the environment, else ``normal``.

    Raises:
        InputError: it is none, or the environment names none.
    """
    names: dict[object, Verbosity] = {name: name for name in get_args(Verbosity)}
    field, value = "verbosity", cast(object, verbosity)
    if value is None:
        field, value = VERBOSITY_VARIABLE, os.environ.get(VERBOSITY_VARIABLE, "normal")
    if value not in names:
        raise InputError(field, value, f"must be {', '.join(map(str, names))}")
    return names[value]


@contextmanager
def showing(work: Work | None = None, *, verbosity: Verbosity | None = None) -> Iterator[Callback]:
    """Return a context manager with a callback that shows progress in the way that fits the place.

    Args:
        work: what is trained. Default: one run.
        verbosity: how much to show. Default: that of the environment variable ``BUDGETNET_VERBOSITY``, else ``normal``.

    Raises:
        InputError: the environment names no verbosity.
    """
    verbosity = chosen_verbosity(verbosity)
    work, console = work or Work(), Console(stderr=True)
    # In a notebook rich needs ipywidgets to update what it has displayed.
    has_bars = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    if verbosity == "quiet":
        yield Callback()
    elif has_bars or sys.stderr.isatty():
        with _bars(console) as bars:
            try:
                yield ProgressBars(work, bars, every_epoch=verbosity == "verbose")
            finally:
                bars.refresh()  # In a notebook, rich ends without showing the last state.
    else:
        yield ProgressLines(work, every_epoch=verbosity == "verbose")


class _Description(TextColumn):
    """Column of descriptions that alone gives way where the line is too long; the numbers stay."""

    def __init__(self) -> None:
        super().__init__("{task.description}", markup=False, table_column=Column(no_wrap=False))

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


def _bars(console: Console) -> Progress:
    return Progress(
        _Description(),
        BarColumn(bar_width=max(8, min(24, console.width // 8))),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class _Counting(Callback, ABC):
    """Callback that counts the runs of a search or batch, and writes a line about each that ends."""

    def __init__(self, work: Work, *, every_epoch: bool) -> None:
        self.work, self.every_epoch = work, every_epoch
        self._current: dict[int, RunInfo] = {}
        """The run of each worker."""

    @abstractmethod
    def write(self, line: str) -> None:
        """Write a line that stays visible."""

    def on_trial_rejected(self, *, worker: int) -> None:  # noqa: ARG002 - counted over all workers
        """Count a rejected trial."""
        self.work.rejected += 1

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        """Note the worker's run, and the runs that were trained before it."""
        self._current[worker] = run
        self.work.trained = max(self.work.trained, run.context.trained)

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        """Count the run, and write its result."""
        work, accuracy = self.work, result.validation_accuracy
        work.trained += 1
        work.pruned += result.status == "stopped"
        if result.status == "complete" and accuracy is not None:
            work.best, work.images = max(work.best or 0.0, accuracy), result.validation_images
        if work.noun:
            outcome = "pruned" if result.status == "stopped" else result.status
            reached = "no result" if accuracy is None else f"{percent(accuracy, images=result.validation_images)} %"
            self._write_ended(
                worker, f"{outcome}, {reached} after {count_of(result.epochs, 'epoch')}, {duration(result.seconds)}"
            )

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:
        """Write why a run of several failed."""
        if self.work.noun and reason is not None and worker in self._current:
            # A run that ran out of memory may be tried again, with smaller parts of its batches.
            memory = any(words in reason for words in ("OutOfMemory", "out of memory"))
            self._write_ended(worker, "ran out of memory" if memory else f"failed: {reason}")

    def _write_ended(self, worker: int, outcome: str) -> None:
        run = self._current[worker]
        self.write(f"{self.work.label_of(run)}, {short_count(run.params)} parameters: {outcome}")

    def _epoch_line(self, epoch: Epoch, *, worker: int) -> str:
        run = self._current[worker]
        name = self.work.name_of(run) or (run.label if self.work.noun else "")
        return (
            f"{name}{', ' * bool(name)}epoch {epoch.epoch} of {run.epochs}: validation accuracy "
            f"{_accuracy(epoch, run)} %, training loss {epoch.train_loss:.3f}"
        )


def _accuracy(epoch: Epoch, run: RunInfo) -> str:
    return percent(epoch.validation_accuracy, images=run.identity.data.validation_images)


class ProgressLines(_Counting):
    """Progress as lines on standard error: every run that ends, and an epoch once in a while."""

    def __init__(self, work: Work, *, every_epoch: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """Create the callback.

        Args:
            work: what is trained.
            every_epoch: whether to write a line for each epoch.
            clock: returns the time in seconds.
        """
        super().__init__(work, every_epoch=every_epoch)
        self._clock = clock
        self._began: tuple[float, int] | None = None
        """When the first run started, and the runs that were trained before."""
        self._started: dict[int, tuple[float, int]] = {}
        """When each worker's run started, and the epochs that it had then."""
        self._announced: set[int] = set()
        """Workers whose run has been announced."""
        self._last_line: dict[int, float] = {}

    def write(self, line: str) -> None:
        """Write a line to standard error at once."""
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        """Note when the run starts."""
        super().on_run_start(run, worker=worker)
        now = self._clock()
        self._began = self._began or (now, self.work.trained)
        self._started[worker] = now, len(run.curves)
        # A single run shows its first epoch, from which a reader can tell how long it takes.
        self._last_line[worker] = now if self.work.noun else now - LINE_INTERVAL
        self._announced.discard(worker)

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:  # noqa: ARG002 - only that it trains
        """Write what is trained, at the first step: a run that is already complete has none."""
        if worker in self._announced:
            return
        self._announced.add(worker)
        run, (_, done) = self._current[worker], self._started[worker]
        state = f"resumes after epoch {done} of {run.epochs}" if done else f"up to {count_of(run.epochs, 'epoch')}"
        self.write(f"{self.work.label_of(run)}, {short_count(run.params)} parameters: {state}")

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        """Write the epoch's accuracy, unless another line was written shortly before."""
        now = self._clock()
        if not self.every_epoch and now - self._last_line[worker] < LINE_INTERVAL:
            return
        self._last_line[worker] = now
        started, before = self._started[worker]
        remaining = self._current[worker].epochs - epoch.epoch
        left = (now - started) / (epoch.epoch - before) * remaining
        self.write(self._epoch_line(epoch, worker=worker) + (f", about {duration(left)} left" if remaining else ""))

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        """Write the result, and the state of the search or batch."""
        super().on_run_end(result, worker=worker)
        work = self.work
        if not work.noun or self._began is None:
            return
        began, before = self._began
        remaining = max(0, work.total - work.trained)
        left = (self._clock() - began) / (work.trained - before) * remaining
        time_left = f" · about {duration(left)} left" if remaining else ""
        self.write(f"{work.trained} of {work.total} {work.summary()}{time_left}")


class ProgressBars(_Counting):
    """Progress as bars: one for the runs of a search or batch, one for the epochs of each worker's run."""

    def __init__(self, work: Work, bars: Progress, *, every_epoch: bool = False) -> None:
        """Create the callback.

        Args:
            work: what is trained.
            bars: where the bars are shown; already started.
            every_epoch: whether to write a line for each epoch above the bars.
        """
        super().__init__(work, every_epoch=every_epoch)
        self._bars = bars
        self._all: TaskID | None = None
        if work.noun:
            self._all = bars.add_task(work.summary(), total=work.total, completed=work.trained)
        self._tasks: dict[int, TaskID] = {}
        """Bar of each worker."""

    def write(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(line, markup=False, highlight=False)

    def on_trial_rejected(self, *, worker: int) -> None:
        """Count a rejected trial."""
        super().on_trial_rejected(worker=worker)
        self._update_all()

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        """Reset the worker's bar for a new run."""
        super().on_run_start(run, worker=worker)
        self._update_all()
        if worker not in self._tasks:
            self._tasks[worker] = self._bars.add_task("", total=run.epochs)
        self._bars.reset(
            self._tasks[worker],
            total=run.epochs,
            completed=len(run.curves),
            description=self._label(run),
            visible=True,
        )

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
        """Update the bar within an epoch."""
        self._bars.update(self._tasks[worker], completed=round(epoch - 1 + share, 1))

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        """Show the epoch's validation accuracy."""
        run = self._current[worker]
        description = f"{self._label(run)} · {_accuracy(epoch, run)} %"
        self._bars.update(self._tasks[worker], completed=epoch.epoch, description=description)
        if self.every_epoch:
            self.write(self._epoch_line(epoch, worker=worker))

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        """Advance the bar of the search or batch, and leave a line about the run."""
        super().on_run_end(result, worker=worker)
        self._update_all()

    def _label(self, run: RunInfo) -> str:
        return f"{self.work.label_of(run)[:60]} · {short_count(run.params)} parameters"

    def _update_all(self) -> None:
        if self._all is not None:
            work = self.work
            self._bars.update(self._all, completed=work.trained, total=work.total, description=work.summary())
