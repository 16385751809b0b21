"""Execution of one job, in whichever process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from budgetnet.common.errors import BudgetnetError, BusyError, RecordError, caused_by_interrupt
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.jobs import Job, JobEnd
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch, RunRecord, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Callback, Callbacks
from budgetnet.training.memory import parts_to_begin_with
from budgetnet.training.out_of_memory import retry_out_of_memory
from budgetnet.training.step import Execution
from budgetnet.training.trainer import identify, needs_training, train


class CycleReporter:
    """Reports the last epoch of each cycle and stops training if the reply says so."""

    def __init__(self, recipe: Recipe, report: Callable[[Epoch], bool], *, reported: Sequence[int] = ()) -> None:
        """Create the reporter.

        Args:
            recipe: recipe of the run.
            report: called with the last epoch of a cycle; returns whether training stops there.
            reported: epochs that an interrupted job of the same run reported before.
        """
        self._ends = recipe.schedule.cycle_ends(recipe.epochs)
        self._send, self._reported_before = report, frozenset(reported)
        self._reported: set[int] = set()
        self.raised: BaseException | None = None
        """Exception raised by ``report``, if any."""

    def confirms_stop(self, result: RunResult) -> bool:
        """Return whether this search may have stopped the run: the run's last epoch was reported to it.

        Another search may have stopped the same run, which does not count here.
        """
        return result.epochs in self._reported_before

    def check_resumed(self, curves: Sequence[Epoch]) -> str | None:
        """Report the cycles of the interrupted job; only the last one can stop the run now."""
        self.catch_up(curves[:-1])
        return self.check_epoch(curves[-1])

    def check_epoch(self, epoch: Epoch) -> str | None:
        """Report an epoch if it ends a cycle; return the reason to stop, if the reply says so."""
        # A run whose memory ran out resumes within the same job.
        if epoch.epoch not in self._ends or epoch.epoch in self._reported or not self._report(epoch):
            return None
        return f"pruned after cycle {epoch.cycle} of {len(self._ends)}: others were better there"

    def catch_up(self, curves: Sequence[Epoch]) -> None:
        """Report what was not reported yet, such as the cycles of a run that was complete already."""
        for epoch in curves:
            if epoch.epoch in self._ends and epoch.epoch not in self._reported:
                self._report(epoch)

    def _report(self, epoch: Epoch) -> bool:
        self._reported.add(epoch.epoch)
        try:
            return self._send(epoch)
        except BaseException as error:
            self.raised = error
            raise


def run_job(job: Job, data: TrainingData, *, out: Path, callback: Callback, report: Callable[[Epoch], bool]) -> JobEnd:
    """Train the run of a job, with half batches if memory runs out, and return how it ended.

    Args:
        job: the job.
        data: training and validation images, on the training device.
        out: folder of run folders.
        callback: receives the events of the run.
        report: called with the last epoch of each cycle; returns whether training stops there.

    Raises:
        BaseException: whatever ``callback`` or ``report`` raises, and interrupts from the keyboard.
    """
    callbacks = Callbacks([callback])
    reporter = CycleReporter(job.run.recipe, report, reported=job.reported) if job.reports else None

    def attempt(execution: Execution) -> RunRecord:
        return train(
            job.run.spec,
            data,
            job.run.recipe,
            seed=job.run.seed,
            out=out,
            execution=execution,
            callback=callbacks,
            context=job.context,
            pruning=reporter,
        )

    try:
        identity = identify(job.run.spec, data, job.run.recipe, seed=job.run.seed)
        begin_with = 1
        if needs_training(RunFolder.of(identity, out), reporter):
            begin_with = parts_to_begin_with(identity.spec, job.run.recipe, data.train.images.device)
        record, parts = retry_out_of_memory(attempt, begin_with=begin_with)
        if record is None:
            return JobEnd("out of memory")
        if reporter:
            reporter.catch_up(record.curves)
    except Exception as error:
        if error is callbacks.raised or (reporter and error is reporter.raised):
            raise
        if caused_by_interrupt(error):
            raise KeyboardInterrupt from error
        return _end_by_error(error)
    return JobEnd("trained", record.result, record.train_flops, record.folder.name, parts)


def _end_by_error(error: Exception) -> JobEnd:
    if isinstance(error, BusyError):
        return JobEnd("busy", message=str(error), error=error)
    if isinstance(error, RecordError):
        return JobEnd("unreadable", message=str(error), exit_code=error.exit_code, error=error)
    if isinstance(error, OSError):
        message = f"{error.filename or 'system'}: {error.strerror or error}"
        return JobEnd("interrupted", message=message, error=error)
    exit_code = error.exit_code if isinstance(error, BudgetnetError) else 1
    message = str(error) if isinstance(error, BudgetnetError) else f"{type(error).__name__}: {error}"
    return JobEnd("failed", message=message, exit_code=exit_code, error=error)
