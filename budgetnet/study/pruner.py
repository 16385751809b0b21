"""Pruners in memory: which candidates stop at the end of a cycle, where the learning rate is at its minimum.

A step is an epoch, and only epochs that end a cycle are reported, so every comparison falls on the end of a cycle. The
decisions are those of Optuna's pruners, which sort all trials at each report; these keep sorted lists.
"""

from __future__ import annotations

import math
from bisect import bisect, bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from budgetnet.common.seeding import derive_seed
from budgetnet.runs.recipe import Recipe
from budgetnet.study.config import PrunerName

REDUCTION_FACTOR = 2
"""One candidate in this many continues from a rung, and each rung lies at this many times the epochs of the last."""
_MEDIAN_STARTUP = 4
"""Complete candidates before the median pruner prunes."""
_RUNG = "completed_rung_"
"""Prefix of the system attributes by which Optuna, and this module, store the value of a trial at a rung."""


class Pruner:
    """Decides at the end of a cycle whether a candidate stops; this one stops none."""

    def report(self, trial: FrozenTrial) -> bool:  # noqa: ARG002 - used by the others
        """Return whether a trial stops after its latest report, which is among its intermediate values.

        What the decision needs later is stored in the trial's system attributes.
        """
        return False

    def ended(self, trial: FrozenTrial) -> None:
        """Take note of a trial that has ended."""

    def restore(self, trials: Iterable[FrozenTrial]) -> None:
        """Take note of the trials of earlier searches that have ended; called once, first."""
        for trial in trials:
            self.ended(trial)


class HalvingPruner(Pruner):
    """Decide by asynchronous successive halving (Li et al. 2020), in one bracket or several (Hyperband).

    At a rung a trial continues if it is among the best `1 / REDUCTION_FACTOR` of the trials of its bracket that came
    there before it, itself included, or the best of all; as Optuna's `SuccessiveHalvingPruner` decides. Interrupted
    trials do not count: their candidates report again in a later trial. The bracket follows from the candidate's
    identity, as a resumed candidate must not change its bracket; Optuna's `HyperbandPruner` takes it from the number.
    """

    def __init__(self, first_rung: int, *, brackets: int = 1) -> None:
        """Create a pruner for studies that maximise.

        Args:
            first_rung: epochs of the first rung.
            brackets: number of brackets; in each, the first comparison is one rung later than in the one before.
        """
        self._first_rung = first_rung
        self._values: dict[tuple[int, int], list[float]] = defaultdict(list)
        """Sorted values of the trials at each rung of each bracket."""
        # Hyperband's shares (Li et al. 2018): the later pruning begins, the more a candidate costs.
        rates = range(brackets - 1, -1, -1)
        shares = (math.ceil(brackets * REDUCTION_FACTOR**rate / (rate + 1)) for rate in rates)
        self._ends = list(accumulate(shares))

    def bracket(self, trial: FrozenTrial) -> int:
        """Return the bracket of a trial's candidate, by the candidate's identity."""
        if len(self._ends) == 1:
            return 0
        place = derive_seed(0, "bracket", str(trial.user_attrs.get("candidate"))) % self._ends[-1]
        return bisect(self._ends, place)

    def report(self, trial: FrozenTrial) -> bool:
        """Return whether a trial stops after its latest report."""
        step, bracket = max(trial.intermediate_values), self.bracket(trial)
        value = trial.intermediate_values[step]
        while step >= self._first_rung * REDUCTION_FACTOR ** (bracket + (rung := len(_rungs(trial)))):
            if math.isnan(value):
                return True
            values = self._values[bracket, rung]
            insort(values, value)
            trial.system_attrs = {**trial.system_attrs, f"{_RUNG}{rung}": value}
            if value < values[-max(len(values) // REDUCTION_FACTOR, 1)]:
                return True
        return False

    def ended(self, trial: FrozenTrial) -> None:
        """Forget a trial that was interrupted or failed."""
        if trial.state == TrialState.FAIL:
            for rung, value in _rungs(trial).items():
                values = self._values[self.bracket(trial), rung]
                del values[bisect_left(values, value)]

    def restore(self, trials: Iterable[FrozenTrial]) -> None:
        """Take note of the trials of earlier searches that have ended."""
        for trial in trials:
            if trial.state != TrialState.FAIL:
                for rung, value in _rungs(trial).items():
                    insort(self._values[self.bracket(trial), rung], value)


def _rungs(trial: FrozenTrial) -> dict[int, float]:
    """Return the values of a trial at the rungs that it has reached."""
    attributes = trial.system_attrs.items()
    return {int(key.removeprefix(_RUNG)): float(value) for key, value in attributes if key.startswith(_RUNG)}


class MedianPruner(Pruner):
    """Prune what is worse than the median of the complete trials at the same epoch, as Optuna's `MedianPruner`."""

    def __init__(self) -> None:
        self._complete = 0
        self._values: dict[int, list[float]] = defaultdict(list)
        """Sorted values of the complete trials at each epoch."""

    def report(self, trial: FrozenTrial) -> bool:
        """Return whether a trial stops after its latest report."""
        if self._complete < _MEDIAN_STARTUP:
            return False
        reached = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        values = self._values.get(max(trial.intermediate_values), [])
        if not reached or not values:
            return not reached
        # The median as numpy rounds it, of the one or two values in the middle.
        middle = values[(len(values) - 1) // 2 : len(values) // 2 + 1]
        return bool(max(reached) < np.percentile(middle, 50))

    def ended(self, trial: FrozenTrial) -> None:
        """Take note of a complete trial."""
        if trial.state == TrialState.COMPLETE:
            self._complete += 1
            for step, value in trial.intermediate_values.items():
                if not math.isnan(value):
                    insort(self._values[step], value)


def make_pruner(name: PrunerName, recipe: Recipe) -> Pruner:
    """Return the pruner of that name for candidates that are trained by a recipe.

    ``asha`` and ``hyperband`` have their first rung at the end of the first cycle. ``median`` prunes at the end of any
    cycle what is worse than the median of the candidates trained to their ends.
    """
    if name == "median":
        return MedianPruner()
    compared = [end for end in recipe.schedule.cycle_ends(recipe.epochs) if end < recipe.epochs]
    if name == "none" or not compared:
        return Pruner()
    rungs = 1 + int(math.log2(compared[-1] / compared[0]) / math.log2(REDUCTION_FACTOR))
    return HalvingPruner(compared[0], brackets=rungs if name == "hyperband" else 1)
