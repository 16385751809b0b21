"""Pruners: decisions at the ends of cycles, against successive halving in plain Python."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from support import restarts, tiny_recipe

from budgetnet.runs.named_recipes import NAMED
from budgetnet.study.pruner import HalvingPruner, make_pruner

SEARCH = (2, 6, 14, 30)
EQUAL = tuple(range(2, 17, 2))
THREEFOLD = (1, 4, 13, 40)


@pytest.mark.parametrize("name", ["search", "digits"])
def test_the_recipes_of_searches_have_rungs(name: str) -> None:
    recipe = NAMED[name]
    pruner = make_pruner("hyperband", recipe)
    assert isinstance(pruner, HalvingPruner)
    trials = [create_trial(state=TrialState.PRUNED, user_attrs={"candidate": str(number)}) for number in range(200)]
    assert max(map(pruner.bracket, trials)) >= 1, "at least two rungs"
    assert recipe.schedule.cycle_ends(recipe.epochs)[-1] == recipe.epochs, "training ends where the rate is lowest"


def halves(values: list[float], own: float) -> bool:
    """Whether the last of `values` continues: fewer than half of all are better, or none."""
    return sum(other > own for other in values) < max(1, len(values) // 2)


class Plain:
    """Successive halving in one bracket: at each rung a list of values, one for each candidate that came there."""

    def __init__(self, ends: tuple[int, ...]) -> None:
        # A rung at each doubling of the first cycle; a candidate comes to it with the first cycle that ends there or
        # later. After a cycle three times as long it comes to two, and to the second only if it passes the first.
        self.rungs = [ends[0] * 2**power for power in range(10)]
        self.reached: dict[int, dict[str, float]] = {rung: {} for rung in self.rungs}
        self.passed: dict[str, int] = {}

    def stops(self, name: str, epoch: int, value: float) -> bool:
        while (rung := self.rungs[self.passed.get(name, 0)]) <= epoch:
            self.reached[rung][name] = value
            if not halves(list(self.reached[rung].values()), value):
                return True
            self.passed[name] = self.passed.get(name, 0) + 1
        return False

    def skip(self, name: str, epoch: int, value: float) -> None:
        """A candidate reports again what it had reported before: it had passed there, whoever came since."""
        if self.stops(name, epoch, value):
            self.passed[name] = self.passed.get(name, 0) + 1

    def forget(self, name: str) -> None:
        for values in self.reached.values():
            values.pop(name, None)
        self.passed.pop(name, None)


class Search:
    """Several workers at a study with Optuna's own trials; a candidate may be interrupted and is resumed later."""

    def __init__(self, ends: tuple[int, ...], *, seed: int) -> None:
        self.ends, self.chance = ends, random.Random(seed)
        self.study = optuna.create_study(direction="maximize", pruner=HalvingPruner(ends[0]))
        self.plain = Plain(ends)
        self.told: dict[str, dict[int, float]] = {}
        self.decisions: list[tuple[bool, bool]] = []

    def start(self, name: str) -> tuple[optuna.Trial, bool]:
        trial = self.study.ask()
        trial.set_user_attr("candidate", name)
        before = sorted(self.told.setdefault(name, {}).items())
        for epoch, value in before[:-1]:
            trial.report(value, epoch)
            trial.should_prune()
            self.plain.skip(name, epoch, value)
        return trial, bool(before) and self.report(trial, name, *before[-1])

    def report(self, trial: optuna.Trial, name: str, epoch: int, value: float) -> bool:
        self.told[name][epoch] = value
        trial.report(value, epoch)
        stops = trial.should_prune()
        self.decisions.append((stops, self.plain.stops(name, epoch, value)))
        return stops

    def run(self, candidates: int, *, workers: int, interruptions: float) -> None:
        waiting = [str(number) for number in range(candidates)]
        working: list[tuple[optuna.Trial, str]] = []
        while waiting or working:
            while waiting and len(working) < workers:
                name = waiting.pop(0)
                trial, stops = self.start(name)
                if stops:
                    self.study.tell(trial, state=TrialState.PRUNED)
                else:
                    working.append((trial, name))
            if not working:
                break
            trial, name = working.pop(self.chance.randrange(len(working)))
            if self.chance.random() < interruptions:
                self.study.tell(trial, state=TrialState.FAIL)
                self.plain.forget(name)
                waiting.append(name)
                continue
            epoch = next(end for end in self.ends if end > max(self.told[name], default=0))
            # Few values, so that equal ones meet.
            value = round(self.chance.random(), 1) + epoch / 100
            if epoch == self.ends[-1]:
                self.study.tell(trial, value)
            elif self.report(trial, name, epoch, value):
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                working.append((trial, name))


@pytest.mark.parametrize("ends", [SEARCH, EQUAL, (5, 10)])
@pytest.mark.parametrize(("workers", "interruptions"), [(1, 0.0), (4, 0.0), (4, 0.25)])
def test_decisions_match_successive_halving(ends: tuple[int, ...], workers: int, interruptions: float) -> None:
    stopped = 0
    for seed in range(8):
        search = Search(ends, seed=seed)
        search.run(25, workers=workers, interruptions=interruptions)
        assert [ours for ours, _ in search.decisions] == [plain for _, plain in search.decisions]
        stopped += sum(ours for ours, _ in search.decisions)
        failed = sum(trial.state == TrialState.FAIL for trial in search.study.get_trials())
        assert bool(failed) == bool(interruptions)
    assert stopped > 8 * 5


def test_a_cycle_three_times_as_long_leads_to_two_rungs() -> None:
    search = Search(THREEFOLD, seed=0)
    search.run(60, workers=4, interruptions=0.0)
    assert [ours for ours, _ in search.decisions] == [plain for _, plain in search.decisions]
    came, went_on = (sum(end in told for told in search.told.values()) for end in (4, 13))
    assert went_on / came < 0.4, "a half of a half"


class Arrivals:
    """Trials that report one after the other, as workers would write them down."""

    def __init__(self, pruner: HalvingPruner) -> None:
        self.study = optuna.create_study(direction="maximize", pruner=pruner)

    def report(self, name: str, values: dict[int, float], *, state: TrialState | None = TrialState.PRUNED) -> bool:
        """Adds a trial that has got so far; tells whether it is to end there."""
        trial = self.study.ask()
        trial.set_user_attr("candidate", name)
        for step, value in values.items():
            trial.report(value, step)
            stops = trial.should_prune()
        if state is not None:
            self.study.tell(trial, state=state)
        return stops


def test_resumed_candidate_counts_once() -> None:
    arrivals = Arrivals(HalvingPruner(1))
    arrivals.report("a", {1: 0.5})
    for _ in range(5):
        # Counted, each of them would make room for one more of the better ones.
        arrivals.report("z", {1: 0.1}, state=TrialState.FAIL)
    arrivals.report("b", {1: 0.4})
    assert not arrivals.report("c", {1: 0.6}), "the first of three"
    assert arrivals.report("d", {1: 0.45}), "the third of four"
    assert not arrivals.report("e", {1: 0.55}), "the second of five"


def test_no_pruning_between_rungs() -> None:
    arrivals = Arrivals(HalvingPruner(2))
    for name in "abcd":
        assert not arrivals.report(name, {2: 0.5, 4: 0.5, 6: 0.9, 8: 0.5})
    assert not arrivals.report("e", {2: 0.5, 4: 0.5, 6: 0.1}), "rungs at 2, 4 and 8 epochs, not at 6"
    assert arrivals.report("f", {2: 0.5, 4: 0.5, 6: 0.1, 8: 0.4})


def test_hyperband_begins_later_in_some_brackets_and_fills_them_by_its_shares() -> None:
    pruner = make_pruner("hyperband", tiny_recipe(epochs=15, schedule=restarts(1, cycle_factor=2)))
    assert isinstance(pruner, HalvingPruner)
    trials = [create_trial(state=TrialState.PRUNED, user_attrs={"candidate": f"{number}"}) for number in range(6000)]
    counts = Counter(pruner.bracket(trial) for trial in trials)
    # Li et al. 2018: ceil(brackets * 2^s / (s + 1)) candidates, s = 2, 1, 0: 4, 3 and 3 of ten.
    assert set(counts) == {0, 1, 2}
    for bracket, share in enumerate((0.4, 0.3, 0.3)):
        assert counts[bracket] / len(trials) == pytest.approx(share, abs=0.03)
    names: dict[int, list[str]] = {bracket: [] for bracket in counts}
    for trial in trials[:60]:
        names[pruner.bracket(trial)].append(trial.user_attrs["candidate"])
    late, *others = names[1]
    arrivals = Arrivals(pruner)
    for name in others:
        arrivals.report(name, {1: 0.9, 3: 0.9})
    for name in names[0] + names[2]:
        arrivals.report(name, {1: 0.05, 3: 0.05})
    assert not arrivals.report(late, {1: 0.1}, state=TrialState.FAIL), "not compared yet"
    assert arrivals.report(late, {1: 0.1, 3: 0.1}), "resumed in its bracket, where all others are better"


@pytest.mark.parametrize(("name", "pruned"), [("asha", True), ("hyperband", True), ("median", True), ("none", False)])
def test_each_pruner_ends_the_worst_of_many(name: Any, pruned: bool) -> None:
    recipe = tiny_recipe(epochs=7, schedule=restarts(1, cycle_factor=2))
    study = optuna.create_study(direction="maximize", pruner=make_pruner(name, recipe))

    def report(number: int, value: float) -> bool:
        trial = study.ask()
        trial.set_user_attr("candidate", str(number))
        stops = False
        for step in (1, 3):
            trial.report(value, step)
            stops = stops or bool(trial.should_prune())
        study.tell(trial, value)
        return stops

    for number in range(30):
        report(number, 0.5 + number / 100)
    assert report(99, 0.1) is pruned
    assert not report(100, 0.99)


@pytest.mark.parametrize("name", ["asha", "hyperband"])
@pytest.mark.parametrize("epochs", [2, 3])
def test_single_cycle_training_is_not_pruned(name: Any, epochs: int) -> None:
    recipe = tiny_recipe(epochs=epochs, schedule=restarts(3))
    assert isinstance(make_pruner(name, recipe), optuna.pruners.NopPruner)
