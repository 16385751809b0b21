"""Pruners: which candidates stop at the end of a cycle, where the learning rate is at its minimum.

A step is an epoch, and only epochs that end a cycle are reported, so every comparison falls on the end of a cycle.
"""

from __future__ import annotations

import math
from bisect import bisect
from itertools import accumulate
from typing import Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from budgetnet.common.seeding import derive_seed
from budgetnet.runs.recipe import Recipe
from budgetnet.study.config import PrunerName

REDUCTION_FACTOR = 2
"""One candidate in this many continues from a rung, and each rung lies at this many times the epochs of the last."""


class HalvingPruner(BasePruner):
    """Decide by asynchronous successive halving (Li et al. 2020), in one bracket or several (Hyperband).

    Optuna's `SuccessiveHalvingPruner` decides: at a rung a trial continues if it is among the best
    `1 / REDUCTION_FACTOR` of the trials that came there before it, itself included, or the best of all. This class
    chooses the trials to compare: those of the same bracket, without interrupted ones, whose candidates report again in
    a later trial. Optuna's `HyperbandPruner` takes the bracket from the trial's number, so a resumed candidate would
    change its bracket and count in two.
    """

    def __init__(self, first_rung: int, *, brackets: int = 1) -> None:
        """Make a pruner for studies that maximise.

        Args:
            first_rung: epochs of the first rung.
            brackets: number of brackets; in each, the first comparison is one rung later than in the one before.
        """
        self._pruners = [
            SuccessiveHalvingPruner(first_rung, REDUCTION_FACTOR, min_early_stopping_rate=bracket)
            for bracket in range(brackets)
        ]
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

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial that has just reported stops here."""
        bracket, trials = self.bracket(trial), study.get_trials(deepcopy=False)
        compared = [other for other in trials if other.state != TrialState.FAIL and self.bracket(other) == bracket]
        # As it is stored the trial also says to which rungs it has come.
        return self._pruners[bracket].prune(_PartOfStudy(study, compared), trials[trial.number])


class _PartOfStudy(optuna.Study):
    """View of a study with some of its trials."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        # Without Optuna's own, which queries the storage for what `study` has.
        self.__dict__.update(study.__dict__)
        self._seen = trials

    def get_trials(self, *_: Any, **__: Any) -> list[FrozenTrial]:
        return self._seen


def make_pruner(name: PrunerName, recipe: Recipe) -> BasePruner:
    """Return the pruner of that name for candidates that are trained by a recipe.

    ``asha`` and ``hyperband`` have their first rung at the end of the first cycle. ``median`` prunes at the end of any
    cycle what is worse than the median of the candidates trained to their ends.
    """
    if name == "median":
        return MedianPruner(n_startup_trials=4)
    compared = [end for end in recipe.schedule.cycle_ends(recipe.epochs) if end < recipe.epochs]
    if name == "none" or not compared:
        return NopPruner()
    rungs = 1 + int(math.log2(compared[-1] / compared[0]) / math.log2(REDUCTION_FACTOR))
    return HalvingPruner(compared[0], brackets=rungs if name == "hyperband" else 1)
