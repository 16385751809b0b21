"""Pruning at restarts: candidates are compared only where a cycle ends and the learning rate is at its minimum.

Optuna's own pruners for successive halving lay their rungs at powers of the step. Here a step is a cycle, and what a
cycle costs depends on the schedule, so the rungs are laid by epochs and fall on ends of cycles.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from budgetnet.common.seeding import derive_seed
from budgetnet.runs.recipe import Recipe
from budgetnet.study.config import PrunerName
from budgetnet.study.outcomes import REPEATED

REDUCTION_FACTOR = 2
"""One in so many candidates goes on from a rung, and a rung lies at so many times the epochs of the one before."""


def rung_cycles(cycle_ends: Sequence[int], *, epochs: int, reduction_factor: int = REDUCTION_FACTOR) -> list[int]:
    """The cycles, counted from 1, at whose ends candidates are compared.

    The first cycle is a rung, and then each that ends at `reduction_factor` times the epochs of the last rung or later;
    the end of training is none, as there is nothing left to save.

    Args:
        cycle_ends: epochs behind which cycles are complete, in order.
        epochs: of the whole training.
        reduction_factor: least ratio of the epochs of neighbouring rungs.
    """
    rungs: list[int] = []
    reached = 0
    for cycle, end in enumerate(cycle_ends, 1):
        if end < epochs and end >= reduction_factor * reached:
            rungs.append(cycle)
            reached = end
    return rungs


class RungPruner(BasePruner):
    """Asynchronous successive halving (Li et al. 2020, in its stopping form), in one bracket or several (Hyperband).

    At a rung a candidate goes on if it is among the best `1 / reduction_factor` of those that came there before it,
    itself among them, or the best of all. Nobody waits for others to arrive.
    """

    def __init__(self, rungs: Sequence[int], *, brackets: int = 1, reduction_factor: int = REDUCTION_FACTOR) -> None:
        """Nobody has come to a rung yet.

        Args:
            rungs: steps at which candidates are compared, in order.
            brackets: how many ways to begin: a candidate of the second is compared from the second rung on, and so
                forth. More candidates are put where pruning begins early, as many as give each bracket the same epochs.
            reduction_factor: one in so many goes on.
        """
        self.rungs = tuple(rungs)
        self.brackets = max(1, min(brackets, len(self.rungs)))
        self.reduction_factor = reduction_factor
        factor, count = reduction_factor, self.brackets
        # Hyperband's shares (Li et al. 2018): the later pruning begins, the more a candidate costs.
        self._weights = [-(-count * factor ** (count - 1 - bracket) // (count - bracket)) for bracket in range(count)]

    def bracket(self, trial: FrozenTrial) -> int:
        """The bracket of a trial, from its candidate's identity: one that is taken up again stays in its own."""
        if self.brackets == 1:
            return 0
        place = derive_seed(0, "bracket", str(trial.user_attrs.get("candidate"))) % sum(self._weights)
        bracket = 0
        while place >= self._weights[bracket]:
            place -= self._weights[bracket]
            bracket += 1
        return bracket

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that has just reported shall end here."""
        step, bracket = trial.last_step, self.bracket(trial)
        if step not in self.rungs[bracket:]:
            return False
        rivals = sorted(
            (
                other.intermediate_values[step]
                for other in study.get_trials(deepcopy=False)
                if step in other.intermediate_values and counts_at_rungs(other) and self.bracket(other) == bracket
            ),
            reverse=True,
        )
        places = max(1, len(rivals) // self.reduction_factor)
        return len(rivals) > 1 and trial.intermediate_values[step] < rivals[places - 1]


def counts_at_rungs(trial: FrozenTrial) -> bool:
    """Whether a trial stands for a candidate of its own: not for one that is taken up again or repeated elsewhere."""
    return trial.state != TrialState.FAIL and trial.user_attrs.get("ended") != REPEATED


def make_pruner(name: PrunerName, recipe: Recipe) -> BasePruner:
    """The pruner of that name for candidates that are trained by a recipe.

    ``median`` prunes what is worse than the median of the candidates trained to their ends, at every restart.
    """
    ends = recipe.schedule.cycle_ends(recipe.epochs)
    rungs = rung_cycles(ends, epochs=recipe.epochs)
    if name == "asha":
        return RungPruner(rungs)
    if name == "hyperband":
        return RungPruner(rungs, brackets=len(rungs))
    return MedianPruner(n_startup_trials=4) if name == "median" else NopPruner()
