"""Rungs at restarts: where they lie, and who goes on from them, against the rule written out."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from support import restarts, tiny_recipe

from budgetnet.runs.named_recipes import NAMED
from budgetnet.study.pruner import RungPruner, make_pruner, rung_cycles


@pytest.mark.parametrize(
    ("ends", "epochs", "factor", "expected"),
    [
        ([1, 3, 7, 15], 15, 2, [1, 2, 3]),  # each cycle is twice as long as the one before
        ([1, 3, 7, 15], 20, 2, [1, 2, 3, 4]),  # training goes on behind the last cycle
        ([1, 3, 7, 15], 15, 3, [1, 2]),  # 7 is less than 3 times 3
        ([2, 4, 6, 8, 10, 12, 14, 16], 16, 2, [1, 2, 4]),  # cycles of one length
        ([100], 150, 2, [1]),
        ([100], 100, 2, []),
        ([], 30, 2, []),
    ],
)
def test_rungs_lie_at_ends_of_cycles_that_multiply_the_epochs(
    ends: list[int], epochs: int, factor: int, expected: list[int]
) -> None:
    assert rung_cycles(ends, epochs=epochs, reduction_factor=factor) == expected


@pytest.mark.parametrize("name", ["search", "digits"])
def test_the_recipes_of_searches_have_rungs(name: str) -> None:
    recipe = NAMED[name]
    assert len(rung_cycles(recipe.schedule.cycle_ends(recipe.epochs), epochs=recipe.epochs)) >= 2
    assert recipe.schedule.cycle_ends(recipe.epochs)[-1] == recipe.epochs, "training ends where the rate is lowest"


class Arrivals:
    """Trials that report one after the other, as workers would write them down."""

    def __init__(self, pruner: RungPruner) -> None:
        self.pruner, self.study = pruner, optuna.create_study(direction="maximize")

    def report(self, name: str, values: dict[int, float], **facts: Any) -> bool:
        """Adds a trial that has got so far; tells whether it is to end there."""
        self.study.add_trial(
            create_trial(
                state=facts.pop("state", TrialState.PRUNED),
                intermediate_values=values,
                user_attrs={"candidate": name, **facts},
            )
        )
        return self.pruner.prune(self.study, self.study.get_trials()[-1])


def test_the_better_half_goes_on() -> None:
    chance = random.Random(7)
    arrivals, seen = Arrivals(RungPruner([1])), list[float]()
    for number in range(60):
        value = round(chance.random(), 2)
        seen.append(value)
        better = sum(other > value for other in seen)
        goes_on = better < max(1, len(seen) // 2)
        assert arrivals.report(str(number), {1: value}) is not goes_on
    assert len(set(seen)) < len(seen), "the case needs candidates that are equal"


def test_every_rung_is_a_competition_of_its_own() -> None:
    arrivals = Arrivals(RungPruner([1, 3]))
    assert not arrivals.report("a", {1: 0.5, 2: 0.9, 3: 0.9})
    assert not arrivals.report("b", {1: 0.6, 2: 0.1}), "no rung lies at the second cycle"
    assert not arrivals.report("c", {1: 0.7, 2: 0.1, 3: 0.91})
    assert arrivals.report("d", {1: 0.8, 2: 0.1, 3: 0.90}), "the best of three is the only one that goes on"
    assert not arrivals.report("e", {1: 0.1, 2: 0.1, 3: 0.95, 4: 0.1})


@pytest.mark.parametrize(("kind", "how"), [("ended", "answered from the record"), ("state", TrialState.FAIL)])
def test_what_is_repeated_or_taken_up_again_counts_once(kind: str, how: Any) -> None:
    arrivals = Arrivals(RungPruner([1]))
    arrivals.report("a", {1: 0.5})
    for _ in range(5):
        # Counted, each of them would make room for one more of the better ones.
        arrivals.report("z", {1: 0.1}, **{kind: how})
    arrivals.report("b", {1: 0.4})
    assert not arrivals.report("c", {1: 0.6}), "the first of three"
    assert arrivals.report("d", {1: 0.45}), "the third of four"
    assert not arrivals.report("e", {1: 0.55}), "the second of five"


def test_hyperband_begins_later_in_some_brackets_and_fills_them_by_its_shares() -> None:
    pruner = RungPruner([1, 2, 4], brackets=3)
    trials = [create_trial(state=TrialState.PRUNED, user_attrs={"candidate": f"{number}"}) for number in range(6000)]
    counts = Counter(pruner.bracket(trial) for trial in trials)
    # Li et al. 2018: ceil(brackets * 2^s / (s + 1)) candidates, s = 2, 1, 0: 4, 3 and 3 of ten.
    for bracket, share in enumerate((0.4, 0.3, 0.3)):
        assert counts[bracket] / len(trials) == pytest.approx(share, abs=0.03)
    late = next(trial for trial in trials if pruner.bracket(trial) == 1).user_attrs["candidate"]
    arrivals = Arrivals(pruner)
    for trial in trials[:60]:
        arrivals.report(trial.user_attrs["candidate"], {1: 0.9, 2: 0.9})
    assert not arrivals.report(late, {1: 0.1}), "not compared yet"
    assert arrivals.report(late, {1: 0.1, 2: 0.1})


def with_value(number: int, value: float, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    final = value if state == TrialState.COMPLETE else None
    facts = {"candidate": str(number)}
    return create_trial(state=state, value=final, intermediate_values={1: value, 2: value}, user_attrs=facts)


@pytest.mark.parametrize(("name", "pruned"), [("asha", True), ("hyperband", True), ("median", True), ("none", False)])
def test_each_pruner_ends_the_worst_of_many(name: Any, pruned: bool) -> None:
    recipe = tiny_recipe(epochs=7, schedule=restarts(1, cycle_factor=2))
    pruner = make_pruner(name, recipe)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for number in range(30):
        study.add_trial(with_value(number, 0.5 + number / 100))
    last = with_value(99, 0.1, TrialState.PRUNED)
    study.add_trial(last)
    assert bool(pruner.prune(study, study.get_trials()[-1])) is pruned
    study.add_trial(with_value(100, 0.99, TrialState.PRUNED))
    assert not pruner.prune(study, study.get_trials()[-1])
