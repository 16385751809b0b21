"""Engine with one worker: this process."""

from __future__ import annotations

from pathlib import Path

from budgetnet.data.training_data import TrainingData
from budgetnet.engines.jobs import Dispatcher, Engine, Waiting
from budgetnet.engines.running import run_job
from budgetnet.training.callbacks import Callback, Callbacks


class InlineEngine(Engine):
    """Executes one job after another in this process."""

    workers = 1

    def __init__(self, data: TrainingData, *, out: Path) -> None:
        """Create the engine.

        Args:
            data: training and validation images, on the training device.
            out: folder of run folders.
        """
        self._data, self._out = data, out

    def run(self, dispatcher: Dispatcher, callback: Callback) -> None:
        """Execute jobs until the dispatcher has none."""
        callbacks = Callbacks([callback, _Ticking(dispatcher)])
        while (job := dispatcher.next_job(0)) is not None:
            if isinstance(job, Waiting):
                dispatcher.tick()
                continue
            try:
                dispatcher.tick()
                end = run_job(
                    job,
                    self._data,
                    out=self._out,
                    callback=callbacks,
                    report=lambda epoch: dispatcher.report(0, epoch),
                )
            except BaseException:
                dispatcher.interrupted(0, death=None, epochs=None)
                raise
            dispatcher.ended(0, end)
            dispatcher.tick()


class _Ticking(Callback):
    """Callback that gives the dispatcher time after every step and epoch."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:  # noqa: ARG002 - only the time counts
        self._dispatcher.tick()
