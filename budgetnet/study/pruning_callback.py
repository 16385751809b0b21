"""Reports of a candidate to the pruner at each restart of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence

from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.study.bulk import Written
from budgetnet.study.ledger import Ledger


class PruningReporter:
    """Reporter of a candidate's accuracy at the end of each cycle, with the pruner's decision."""

    def __init__(self, ledger: Ledger, written: Written, recipe: Recipe, *, retry_of: int | None) -> None:
        """Make a reporter.

        Args:
            ledger: ledger of the study.
            written: the candidate's trial.
            recipe: recipe of the candidate.
            retry_of: number of the interrupted trial that it resumes, if any.
        """
        self._ledger, self._written = ledger, written
        self._ends = recipe.schedule.cycle_ends(recipe.epochs)
        self._reported: set[int] = set()
        self._reported_before = ledger.reported_before(retry_of)

    def confirms_stop(self, result: RunResult) -> bool:
        """Return whether this study's pruner may have stopped the run: the run's last epoch was reported to it.

        The pruner of another study may have stopped the same run, which does not count here.
        """
        return result.epochs in self._reported_before

    def check_resumed(self, curves: Sequence[Epoch]) -> str | None:
        """Report the cycle ends of the interrupted trial; only the last one can stop the candidate now."""
        self.catch_up(curves[:-1])
        return self.check_epoch(curves[-1])

    def check_epoch(self, epoch: Epoch) -> str | None:
        """Report an epoch if it ends a cycle; return the reason to stop, if the pruner stops the candidate."""
        if epoch.epoch not in self._ends or not self._report(epoch):
            return None
        return f"pruned after cycle {epoch.cycle} of {len(self._ends)}: others were better there"

    def catch_up(self, curves: Sequence[Epoch]) -> None:
        """Report what was not reported yet, such as the cycle ends of a run loaded from its folder."""
        for epoch in curves:
            if epoch.epoch in self._ends and epoch.epoch not in self._reported:
                self._report(epoch)

    def _report(self, epoch: Epoch) -> bool:
        self._reported.add(epoch.epoch)
        return self._ledger.report(self._written, value=epoch.validation_accuracy, step=epoch.epoch)
