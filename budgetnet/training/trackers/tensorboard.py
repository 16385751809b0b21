"""Runs for TensorBoard: one folder of event files for each, with scalars by epoch and hyperparameters at the end.

Events are written by TensorBoard's own record writer, at once: its event writer, which torch's writes through, does so
in a thread, where an error would be seen by nobody who could answer it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Announced
from budgetnet.training.trackers.base import (
    CURVES,
    LENGTH,
    RunTracker,
    curve_values,
    describe,
    final_values,
    require_package,
)


class _EventFile:
    """One file of events, of a run's one start."""

    def __init__(self, folder: Path, *, purge_step: int | None) -> None:
        """Opens a file behind those that the folder holds; with a step from which on these count no more."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # Readers take files by the order of their names, and know them by the second word.
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((folder / name).open("xb"))
        self._write(file_version="brain.Event:2")
        if purge_step is not None:
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Writes scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=points))

    def add_hyperparameters(self, facts: Mapping[str, bool | float | str]) -> None:
        """Writes what runs are compared by."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._write(summary=hparams_pb(dict(facts)))

    def close(self) -> None:
        """Nothing is written any more."""
        self._records.close()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
        # So that a kill leaves what had ended.
        self._records.flush()


class _Kept(NamedTuple):
    events: _EventFile
    run: Announced
    ended: bool
    """Whether the end of a run of so many epochs is kept already."""


class TensorBoard(RunTracker[_Kept]):
    """Keeps runs for ``tensorboard --logdir FOLDER``, each in a folder that is named as its run folder is."""

    name = "TensorBoard"

    def __init__(self, folder: Path | str) -> None:
        """Nothing is written yet.

        Args:
            folder: in which every run has a folder.

        Raises:
            InputError: TensorBoard is not installed.
        """
        require_package("tensorboard", extra="tensorboard")
        super().__init__()
        self._folder = Path(folder)

    def _begin(self, run: Announced) -> tuple[_Kept, set[int]]:
        folder = self._folder / run.run
        steps, behind = _steps_in(folder), len(run.curves)
        # Every epoch is one record, so one of its curves speaks for all. What will be trained again counts no more.
        known = steps.get(next(iter(CURVES)), set())
        purge = min((epoch for epoch in known if epoch > behind), default=None)
        events = _EventFile(folder, purge_step=purge)
        ended = purge is None and behind in steps.get(LENGTH, ())
        return _Kept(events, run, ended), {epoch for epoch in known if epoch <= behind}

    def _keep(self, kept: _Kept, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:
            kept.events.add(curve_values(epoch), step=epoch.epoch)

    def _end(self, kept: _Kept, result: RunResult) -> None:
        if not kept.ended:
            self._write_end(kept, result)
        kept.events.close()

    def _write_end(self, kept: _Kept, result: RunResult) -> None:
        facts = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in describe(kept.run).items()
        }
        kept.events.add_hyperparameters({**facts, "ended": result.reason})
        kept.events.add(final_values(result), step=result.epochs)

    def _break_off(self, kept: _Kept, reason: str | None) -> None:  # noqa: ARG002 - event files know of no failure
        kept.events.close()


def _steps_in(folder: Path) -> dict[str, set[int]]:
    """The steps of every scalar that event files hold, by its name."""
    if not folder.exists():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    return {name: {event.step for event in events.Scalars(name)} for name in events.Tags()[SCALARS]}
