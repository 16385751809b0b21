"""Pruners: decisions at the ends of cycles, against Optuna's pruners and successive halving in plain Python."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState, create_trial
from support import restarts, tiny_recipe

from budgetnet.runs.named_recipes import NAMED
from budgetnet.runs.schedule import Schedule
from budgetnet.study.pruner import HalvingPruner, MedianPruner, Pruner, make_pruner

SEARCH = (2, 6, 14, 30)
EQUAL = tuple(range(2, 17, 2))
THREEFOLD = (1, 4, 13, 40)
SEEDS = 2


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


def optunas_decision(pruner: BasePruner, others: list[FrozenTrial], trial: FrozenTrial) -> tuple[bool, dict[str, Any]]:
    """What a pruner of Optuna decides in a study of these trials, and the system attributes that it leaves."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.add_trials([*others, trial])
    stops = pruner.prune(study, study.get_trials()[-1])
    return bool(stops), study.get_trials()[-1].system_attrs


class Trials:
    """Trials in memory, whose reports a pruner decides about as it does for a search, and Optuna's pruner too."""

    def __init__(self, make: Callable[[], Pruner], oracle: Callable[[int], BasePruner]) -> None:
        self.pruner, self.trials = make(), list[FrozenTrial]()
        self.decisions: list[tuple[bool, bool]] = []
        self._make, self._oracle = make, oracle

    def ask(self, name: str) -> FrozenTrial:
        trial = create_trial(state=TrialState.RUNNING, user_attrs={"candidate": name})
        self.trials.append(trial)
        return trial

    def report(self, trial: FrozenTrial, value: float, epoch: int) -> bool:
        trial.intermediate_values = {**trial.intermediate_values, epoch: value}
        bracket = self._bracket(trial)
        # Interrupted candidates report again in a later trial, so that the earlier one does not count.
        others = [
            each
            for each in self.trials
            if each is not trial and each.state != TrialState.FAIL and self._bracket(each) == bracket
        ]
        expected, attributes = optunas_decision(self._oracle(bracket), others, copy.deepcopy(trial))
        stops = self.pruner.report(trial)
        assert trial.system_attrs == attributes
        self.decisions.append((stops, expected))
        return stops

    def _bracket(self, trial: FrozenTrial) -> int:
        return self.pruner.bracket(trial) if isinstance(self.pruner, HalvingPruner) else 0

    def tell(self, trial: FrozenTrial, state: TrialState, value: float | None = None) -> None:
        trial.state, trial.values = state, None if value is None else [value]
        trial.datetime_complete = trial.datetime_start
        self.pruner.ended(trial)

    def resume(self) -> None:
        """Go on as a new search does: with a new pruner, and what was running interrupted."""
        self.pruner = self._make()
        self.pruner.restore(trial for trial in self.trials if trial.state != TrialState.RUNNING)
        for trial in self.trials:
            if trial.state == TrialState.RUNNING:
                trial.state, trial.datetime_complete = TrialState.FAIL, trial.datetime_start


def optunas_halving(first_rung: int) -> Callable[[int], BasePruner]:
    return lambda bracket: SuccessiveHalvingPruner(
        min_resource=first_rung, reduction_factor=2, min_early_stopping_rate=bracket
    )


def optunas_median(_bracket: int) -> BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0)


class Search:
    """Several workers at a study; a candidate may be interrupted and is resumed later, also by a new search."""

    def __init__(
        self, ends: tuple[int, ...], trials: Trials, *, seed: int, plain: Plain | None = None, resumes: float = 0.0
    ) -> None:
        self.ends, self.chance = ends, random.Random(seed)
        self.trials, self.plain, self._resumes = trials, plain, resumes
        self.told: dict[str, dict[int, float]] = {}
        self.plain_decisions: list[bool] = []
        self._waiting: list[str] = []
        self._working: list[tuple[FrozenTrial, str]] = []

    def start(self, name: str) -> tuple[FrozenTrial, bool]:
        trial = self.trials.ask(name)
        before = sorted(self.told.setdefault(name, {}).items())
        for epoch, value in before[:-1]:
            self.trials.report(trial, value, epoch)
            if self.plain:
                self.plain.skip(name, epoch, value)
                self.plain_decisions.append(self.trials.decisions[-1][0])
        return trial, bool(before) and self.report(trial, name, *before[-1])

    def report(self, trial: FrozenTrial, name: str, epoch: int, value: float) -> bool:
        self.told[name][epoch] = value
        if self.plain:
            self.plain_decisions.append(self.plain.stops(name, epoch, value))
        return self.trials.report(trial, value, epoch)

    def interrupt(self, name: str) -> None:
        self._waiting.append(name)
        if self.plain:
            self.plain.forget(name)

    def run(self, candidates: int, *, workers: int, interruptions: float) -> None:
        self._waiting = [str(number) for number in range(candidates)]
        while self._waiting or self._working:
            if self.chance.random() < self._resumes:
                self.trials.resume()
                for _, name in self._working:
                    self.interrupt(name)
                self._working.clear()
            while self._waiting and len(self._working) < workers:
                name = self._waiting.pop(0)
                trial, stops = self.start(name)
                if stops:
                    self.trials.tell(trial, TrialState.PRUNED)
                else:
                    self._working.append((trial, name))
            if self._working:
                self.work(*self._working.pop(self.chance.randrange(len(self._working))), interruptions)

    def work(self, trial: FrozenTrial, name: str, interruptions: float) -> None:
        if self.chance.random() < interruptions:
            self.trials.tell(trial, TrialState.FAIL)
            self.interrupt(name)
            return
        epoch = next(end for end in self.ends if end > max(self.told[name], default=0))
        # Few values, so that equal ones meet.
        value = round(self.chance.random(), 1) + epoch / 100
        if epoch == self.ends[-1]:
            self.trials.tell(trial, TrialState.COMPLETE, value)
        elif self.report(trial, name, epoch, value):
            self.trials.tell(trial, TrialState.PRUNED)
        else:
            self._working.append((trial, name))


def halving_search(ends: tuple[int, ...], *, seed: int, resumes: float = 0.0, brackets: int = 1) -> Search:
    trials = Trials(lambda: HalvingPruner(ends[0], brackets=brackets), optunas_halving(ends[0]))
    return Search(ends, trials, seed=seed, plain=Plain(ends) if brackets == 1 else None, resumes=resumes)


def check_decisions(search: Search) -> int:
    """That all decisions were those of Optuna's pruner, and of the plain one; return how many candidates stopped."""
    ours = [decision for decision, _ in search.trials.decisions]
    assert ours == [expected for _, expected in search.trials.decisions]
    assert search.plain is None or ours == search.plain_decisions
    return sum(ours)


@pytest.mark.parametrize("ends", [SEARCH, EQUAL, (5, 10)])
@pytest.mark.parametrize(("workers", "interruptions", "resumes"), [(1, 0.0, 0.0), (4, 0.0, 0.0), (4, 0.25, 0.05)])
def test_decisions_match_successive_halving(
    ends: tuple[int, ...], workers: int, interruptions: float, resumes: float
) -> None:
    stopped = 0
    for seed in range(SEEDS):
        search = halving_search(ends, seed=seed, resumes=resumes)
        search.run(25, workers=workers, interruptions=interruptions)
        stopped += check_decisions(search)
        failed = sum(trial.state == TrialState.FAIL for trial in search.trials.trials)
        assert bool(failed) == bool(interruptions)
    assert stopped > SEEDS * 5


@pytest.mark.parametrize("resumes", [0.0, 0.05])
def test_decisions_of_every_bracket_match_successive_halving(resumes: float) -> None:
    stopped = 0
    for seed in range(SEEDS):
        search = halving_search(SEARCH, seed=seed, resumes=resumes, brackets=3)
        search.run(40, workers=4, interruptions=resumes)
        stopped += check_decisions(search)
    assert stopped > SEEDS * 5


@pytest.mark.parametrize(("workers", "interruptions", "resumes"), [(1, 0.0, 0.0), (4, 0.0, 0.0), (4, 0.25, 0.05)])
def test_decisions_match_optunas_median_pruner(workers: int, interruptions: float, resumes: float) -> None:
    stopped = 0
    for seed in range(SEEDS):
        search = Search(SEARCH, Trials(MedianPruner, optunas_median), seed=seed, resumes=resumes)
        search.run(30, workers=workers, interruptions=interruptions)
        stopped += check_decisions(search)
    assert stopped > SEEDS * 5


@pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning")
@pytest.mark.parametrize("name", ["asha", "median"])
def test_decisions_about_what_is_no_number_match_optunas(name: str) -> None:
    nan = math.nan
    rows = [
        *({1: 0.1 * number, 2: nan if number % 2 else 0.5} for number in range(5)),
        *({1: nan}, {1: nan, 2: nan}, {1: 0.35, 2: nan}, {1: nan, 2: 0.1}, {1: nan, 2: 0.9}, {3: nan}, {3: 0.1}),
    ]
    trials = (
        Trials(MedianPruner, optunas_median)
        if name == "median"
        else Trials(lambda: HalvingPruner(1), optunas_halving(1))
    )
    for number, row in enumerate(rows):
        trial = trials.ask(str(number))
        for epoch, value in row.items():
            trials.report(trial, value, epoch)
        trials.tell(trial, TrialState.COMPLETE, 0.5)
    assert [ours for ours, _ in trials.decisions] == [expected for _, expected in trials.decisions]
    assert {ours for ours, _ in trials.decisions} == {True, False}


def test_a_cycle_three_times_as_long_leads_to_two_rungs() -> None:
    search = halving_search(THREEFOLD, seed=0)
    search.run(60, workers=4, interruptions=0.0)
    check_decisions(search)
    came, went_on = (sum(end in told for told in search.told.values()) for end in (4, 13))
    assert went_on / came < 0.4, "a half of a half"


class Arrivals:
    """Trials that report one after the other."""

    def __init__(self, pruner: Pruner) -> None:
        self._pruner = pruner

    def report(self, name: str, values: dict[int, float], *, state: TrialState = TrialState.PRUNED) -> bool:
        """Add a trial with these reports; return whether it stops after the last of them."""
        trial = create_trial(state=TrialState.RUNNING, user_attrs={"candidate": name})
        stops = False
        for step, value in values.items():
            trial.intermediate_values = {**trial.intermediate_values, step: value}
            stops = self._pruner.report(trial)
        trial.state = state
        self._pruner.ended(trial)
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
    arrivals = Arrivals(make_pruner(name, tiny_recipe(epochs=7, schedule=restarts(1, cycle_factor=2))))

    def report(number: int, value: float) -> bool:
        return arrivals.report(str(number), {1: value, 3: value}, state=TrialState.COMPLETE)

    for number in range(30):
        report(number, 0.5 + number / 100)
    assert report(99, 0.1) is pruned
    assert not report(100, 0.99)


@pytest.mark.parametrize("name", ["asha", "hyperband"])
@pytest.mark.parametrize("epochs", [2, 3])
def test_single_cycle_training_is_not_pruned(name: Any, epochs: int) -> None:
    recipe = tiny_recipe(epochs=epochs, schedule=restarts(3))
    assert type(make_pruner(name, recipe)) is Pruner


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_milestones_are_rungs_and_other_schedules_without_cycles_have_none(name: Any) -> None:
    steps = tiny_recipe(epochs=9, schedule=Schedule(kind="steps", milestones=(2, 4)))
    pruner = make_pruner(name, steps)
    assert isinstance(pruner, HalvingPruner)
    trials = [create_trial(state=TrialState.PRUNED, user_attrs={"candidate": str(number)}) for number in range(200)]
    assert max(map(pruner.bracket, trials)) == (1 if name == "hyperband" else 0)
    for schedule in (Schedule(kind="plateau"), Schedule(kind="constant"), Schedule(kind="steps", milestones=())):
        assert type(make_pruner(name, tiny_recipe(epochs=9, schedule=schedule))) is Pruner
