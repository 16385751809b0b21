"""Between the trainer and the pruner: what a candidate reports at its restarts, and whether it goes on from there."""

from __future__ import annotations

from collections.abc import Sequence

from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.study.bulk import Written
from budgetnet.study.ledger import Ledger


class CycleJudge:
    """Reports a candidate at the end of each cycle, where the learning rate is at its minimum, and hears the pruner."""

    def __init__(self, ledger: Ledger, written: Written, recipe: Recipe, *, retry_of: int | None) -> None:
        """Nothing is reported yet.

        Args:
            ledger: of the study.
            written: the candidate's trial.
            recipe: how it is trained.
            retry_of: number of the interrupted trial that it takes up again, if it does.
        """
        self._ledger, self._written = ledger, written
        self._ends = recipe.schedule.cycle_ends(recipe.epochs)
        self._reported: set[int] = set()
        self._heard = ledger.reported_before(retry_of)

    def confirms_stop(self, result: RunResult) -> bool:
        """Whether this study's pruner may have stopped the run: it was told of the epoch that the run ended with.

        Another study's pruner may have stopped the same candidate; its word does not count here.
        """
        return result.epochs in self._heard

    def check_resumed(self, curves: Sequence[Epoch]) -> str | None:
        """Reports the cycle ends of an earlier start, which stand in another trial; only the last can end it now."""
        self.catch_up(curves[:-1])
        return self.check_epoch(curves[-1])

    def check_epoch(self, epoch: Epoch) -> str | None:
        """Reports an epoch that ends a cycle."""
        if epoch.epoch not in self._ends or not self._report(epoch):
            return None
        return f"pruned behind cycle {epoch.cycle} of {len(self._ends)}: others were better there"

    def catch_up(self, curves: Sequence[Epoch]) -> None:
        """Reports what was not reported yet, such as the cycle ends of a run that was answered from its record."""
        for epoch in curves:
            if epoch.epoch in self._ends and epoch.epoch not in self._reported:
                self._report(epoch)

    def _report(self, epoch: Epoch) -> bool:
        self._reported.add(epoch.epoch)
        return self._ledger.report(self._written, value=epoch.validation_accuracy, step=epoch.epoch)
