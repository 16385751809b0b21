"""Replay of pruning: the search's own pruners on stored learning curves, against trainings to the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState, create_trial

from budgetnet.bench.quality.problem import Curves, Problem
from budgetnet.common.seeding import derive_seed
from budgetnet.statistics.intervals import mean_interval
from budgetnet.study.config import PrunerName
from budgetnet.study.pruner import Pruner, make_pruner

PRUNERS: tuple[PrunerName, ...] = ("asha", "hyperband", "median")
"""Pruners that are replayed."""


class PruningRow(NamedTuple):
    """Replays of one pruner on a table, each with the same order of random candidates as without pruning."""

    table: str
    problem: str
    """Name of the problem within the table."""
    pruner: str
    compared: tuple[int, ...]
    """Epochs after which candidates are pruned."""
    candidates: int
    """Number of candidates that are trained without pruning."""
    plain: NDArray[np.float64]
    """Regret without pruning, `(replays,)`, in points."""
    pruned: NDArray[np.float64]
    """Regret with pruning after equally many candidates, `(replays,)`."""
    saved: NDArray[np.float64]
    """Share of the epochs that pruning saves there, `(replays,)`."""
    equal_epochs: NDArray[np.float64]
    """Regret with pruning after equally many epochs, on more candidates, `(replays,)`."""
    candidates_then: NDArray[np.float64]
    """Number of these candidates, `(replays,)`; all of the table if there are no more."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the means as plain data, with 95 % intervals of the differences to no pruning."""
        return {
            "table": self.table,
            "problem": self.problem,
            "pruner": self.pruner,
            "compared_after_epochs": list(self.compared),
            "candidates": self.candidates,
            "regret_unpruned": float(self.plain.mean()),
            "regret": float(self.pruned.mean()),
            "difference_interval": list(mean_interval((self.pruned - self.plain).tolist())),
            "epochs_saved": float(self.saved.mean()),
            "candidates_at_equal_epochs": float(self.candidates_then.mean()),
            "regret_at_equal_epochs": float(self.equal_epochs.mean()),
            "difference_interval_at_equal_epochs": list(mean_interval((self.equal_epochs - self.plain).tolist())),
        }


class PrunedSearch(NamedTuple):
    """Candidates in the order in which a search trains them, and the epochs of each."""

    order: list[int]
    epochs: list[int]
    """Epochs that each candidate is trained; fewer than all if it is pruned."""


def replay_pruners(problem: Problem, counts: Sequence[int], *, count: int, seed: int) -> list[PruningRow]:
    """Replay searches of random candidates with and without pruning.

    Args:
        problem: a table with curves.
        counts: numbers of candidates that are trained without pruning.
        count: replays.
        seed: seed of the replays; replay n of every pruner has the same judge and the same order.
    """
    rows = []
    for name in PRUNERS:
        replays = [_replay(problem, name, counts, seed=seed, repetition=each) for each in range(count)]
        columns = np.array(replays).transpose(1, 2, 0)
        rows += [
            PruningRow(problem.table, problem.name, name, _compared(problem), number, *columns[place])
            for place, number in enumerate(counts)
        ]
    return rows


def _replay(
    problem: Problem, pruner: PrunerName, counts: Sequence[int], *, seed: int, repetition: int
) -> list[list[float]]:
    """Return the numbers of a `PruningRow` for each count of candidates."""
    recipe, place = _curves(problem).recipe, repetition % problem.accuracy.shape[1]
    judge = problem.accuracy[:, place]
    generator = np.random.default_rng(derive_seed(seed, "pruning", repetition))
    order = generator.permutation(problem.within).tolist()
    searched = prune(problem, make_pruner(pruner, recipe), order, seed=place)
    whole, spent = recipe.epochs, np.cumsum(searched.epochs)
    found = []
    for number in (min(each, len(order)) for each in counts):
        then = int(np.searchsorted(spent, number * whole, side="right"))
        found.append(
            [
                problem.regret(judge, order[:number]),
                problem.regret(judge, _complete(searched, number, whole)),
                1 - float(spent[number - 1]) / (number * whole),
                problem.regret(judge, _complete(searched, then, whole)),
                float(then),
            ]
        )
    return found


def prune(problem: Problem, pruner: Pruner, order: Sequence[int], *, seed: int) -> PrunedSearch:
    """Train candidates one after another as a search does: a pruner may stop each at the end of a cycle.

    Args:
        problem: a table with curves.
        pruner: the search's pruner, which knows no candidates.
        order: the candidates.
        seed: place of the training seed.
    """
    recipe, curves = _curves(problem)
    ends = recipe.schedule.cycle_ends(recipe.epochs)
    epochs = []
    for number, candidate in enumerate(order):
        trial = create_trial(state=TrialState.RUNNING, user_attrs={"candidate": str(candidate)})
        trial.number = number
        stopped = recipe.epochs
        for end in ends:
            trial.intermediate_values = {
                **trial.intermediate_values,
                end: float(curves[candidate, seed, end - 1]) / 100,
            }
            if pruner.report(trial) and end < recipe.epochs:
                stopped = end
                break
        trial.state = TrialState.COMPLETE if stopped == recipe.epochs else TrialState.PRUNED
        pruner.ended(trial)
        epochs.append(stopped)
    return PrunedSearch(list(order), epochs)


def _complete(searched: PrunedSearch, count: int, whole: int) -> list[int]:
    """Return the candidates among the first ones that were trained to the end."""
    pairs = zip(searched.order[:count], searched.epochs[:count], strict=True)
    return [candidate for candidate, epochs in pairs if epochs == whole]


def _compared(problem: Problem) -> tuple[int, ...]:
    recipe = _curves(problem).recipe
    return tuple(end for end in recipe.schedule.cycle_ends(recipe.epochs) if end < recipe.epochs)


def _curves(problem: Problem) -> Curves:
    if problem.curves is None:
        raise TypeError(f"{problem.table} has no curves")
    return problem.curves
