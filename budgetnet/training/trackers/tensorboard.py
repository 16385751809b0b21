"""TensorBoard tracker: one folder of event files for each run, with scalars of every epoch and hyperparameters.

Events are written with TensorBoard's RecordWriter and flushed at once: its EventFileWriter, which torch's SummaryWriter
uses, writes in a thread, so that errors would not reach the tracker.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from budgetnet.common.extras import require_extra
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import RunInfo
from budgetnet.training.trackers.base import (
    CURVES,
    LENGTH,
    RunTracker,
    epoch_metrics,
    final_metrics,
    hyperparameters,
)


class _EventFile:
    """One event file; a resumed run writes a new one."""

    def __init__(self, folder: Path, *, purge_step: int | None) -> None:
        """Create a file.

        Args:
            folder: folder of the run's event files.
            purge_step: step from which on readers discard the events of earlier files; None to keep all.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # Readers recognise files by "tfevents" and read them in the order of their names.
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((folder / name).open("xb"))
        self._write(file_version="brain.Event:2")
        if purge_step is not None:
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Write scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=points))

    def add_hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Write hyperparameters."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._write(summary=hparams_pb(dict(values)))

    def close(self) -> None:
        """Close the file."""
        self._records.close()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
        # Flush, so that a killed process loses no finished epoch.
        self._records.flush()


class _OpenRun(NamedTuple):
    events: _EventFile
    run: RunInfo
    ended: bool
    """Whether the end of the run was logged before, with the same number of epochs."""


class TensorBoard(RunTracker[_OpenRun]):
    """Tracker for ``tensorboard --logdir FOLDER``, with one subfolder for each run, named like its run folder."""

    name = "TensorBoard"

    def __init__(self, folder: Path | str) -> None:
        """Create the tracker; files are created when runs start.

        Args:
            folder: log directory.

        Raises:
            InputError: TensorBoard is not installed.
        """
        require_extra("tensorboard", "tensorboard", field="tracker", value="tensorboard")
        super().__init__()
        self._folder = Path(folder)

    def _begin(self, run: RunInfo) -> tuple[_OpenRun, set[int]]:
        folder = self._folder / run.run
        steps, trained = _logged_steps(folder), len(run.curves)
        # All metrics of an epoch are one record, so one of them shows which epochs were logged. Epochs that will be
        # trained again are purged.
        logged = steps.get(next(iter(CURVES)), set())
        purge = min((epoch for epoch in logged if epoch > trained), default=None)
        events = _EventFile(folder, purge_step=purge)
        ended = purge is None and trained in steps.get(LENGTH, ())
        return _OpenRun(events, run, ended), {epoch for epoch in logged if epoch <= trained}

    def _log_epochs(self, open_run: _OpenRun, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:
            open_run.events.add(epoch_metrics(epoch), step=epoch.epoch)

    def _end(self, open_run: _OpenRun, result: RunResult) -> None:
        if not open_run.ended:
            self._write_end(open_run, result)
        open_run.events.close()

    def _write_end(self, open_run: _OpenRun, result: RunResult) -> None:
        values = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in hyperparameters(open_run.run).items()
        }
        open_run.events.add_hyperparameters({**values, "ended": result.reason})
        open_run.events.add(final_metrics(result), step=result.epochs)

    def _interrupt(self, open_run: _OpenRun, reason: str | None) -> None:  # noqa: ARG002 - event files have no status
        open_run.events.close()


def _logged_steps(folder: Path) -> dict[str, set[int]]:
    """Return the logged steps of every scalar, by its name."""
    if not folder.exists():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    return {name: {event.step for event in events.Scalars(name)} for name in events.Tags()[SCALARS]}
