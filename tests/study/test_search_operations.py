"""Limit on the training operations of a search: never exceeded, and not left unused."""

from __future__ import annotations

import csv
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial
from search_support import SearchRunner, Watcher
from support import PAIR_SPACE, TINY, TINY_SPACE, restarts, tiny_recipe

from budgetnet.common.errors import InputError
from budgetnet.common.files import read_mapping
from budgetnet.data import DataSet
from budgetnet.runs.records import RunResult
from budgetnet.study.driver import SearchOutcome
from budgetnet.training.callbacks import RunInfo

IMAGES = 64
"""Training images of a `SearchRunner`."""
CYCLES = tiny_recipe(epochs=12, schedule=restarts(4, cycle_factor=2))
BY_RATE = {**TINY_SPACE, "recipe": {"learning_rate": {"low": 0.01, "high": 0.3, "log": True}}}
PFLOP = 10**15


def by_hand(macs: int, epochs: int) -> int:
    """Operations of a training: 6 for each multiply-accumulate, image and epoch."""
    return 6 * macs * IMAGES * epochs


def used(out: Path) -> int:
    """Operations of all runs in a folder, from the MACs in their results and the rows of their curves."""
    total = 0
    for file in out.glob("*/result.json"):
        with (file.parent / "curves.csv").open(newline="") as curves:
            total += by_hand(read_mapping(file)["macs"], len(list(csv.DictReader(curves))))
    return total


class Meter(Watcher):
    """Follows what the trainings may come to, if none in training is pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.used = self.peak = 0
        self._training: dict[int, int] = {}

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        super().on_run_start(run, worker=worker)
        self._training[worker] = by_hand(run.macs, run.epochs)
        self.peak = max(self.peak, self.used + sum(self._training.values()))

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        super().on_run_end(result, worker=worker)
        del self._training[worker]
        self.used += by_hand(result.macs, result.epochs)


class Studies:
    """Searches of the same candidates: one without a limit, and others with a limit in folders of their own."""

    def __init__(self, digits: DataSet, folder: Path, **options: Any) -> None:
        self._digits, self._folder, self._options = digits, folder, options
        self.whole = trained(self.search("whole"))
        """Trained trials of the search without a limit."""

    def search(self, name: str, *, most: int | None = None, **options: Any) -> SearchOutcome:
        given = {**self._options, **options}
        limit = {} if most is None else {"max_train_flops": most / PFLOP}
        given["ways"] = {**given.get("ways", {}), **limit}
        return SearchRunner(self._digits, self._folder / name)(**given)


def trained(outcome: SearchOutcome) -> list[FrozenTrial]:
    return [trial for trial in outcome.study.get_trials() if trial.user_attrs.get("trained")]


def facts(trials: list[FrozenTrial]) -> list[Any]:
    """What a search found, without times and names of machines."""
    varying = ("seconds", "host")
    return [
        (
            *(trial.number, trial.state, trial.values, trial.params, trial.intermediate_values),
            {key: value for key, value in trial.user_attrs.items() if key not in varying},
        )
        for trial in trials
    ]


@pytest.mark.parametrize("sampler", ["surrogate", "tpe", "random"])
def test_a_search_trains_what_the_limit_allows_and_goes_on_with_a_larger_one(
    digits: DataSet, tmp_path: Path, sampler: str
) -> None:
    studies = Studies(digits, tmp_path, trials=6, recipe=tiny_recipe(epochs=2), ways={"sampler": sampler})
    costs = [by_hand(trial.user_attrs["macs"], 2) for trial in studies.whole]
    # The last case is one operation short of the fifth candidate.
    for most, count in ((sum(costs[:3]), 3), (sum(costs[:4]), 4), (sum(costs[:5]) - 1, 4)):
        outcome = studies.search("limited", most=most)
        assert (outcome.end, outcome.trained, outcome.refused) == ("train flops", count, costs[count])
        assert used(tmp_path / "limited") == outcome.train_flops == sum(costs[:count]) <= most
        assert used(tmp_path / "limited") + costs[count] > most
    outcome = studies.search("limited", most=sum(costs))
    assert (outcome.end, outcome.trained, outcome.refused) == ("done", 6, None)
    undisturbed = studies.search("whole").study.get_trials()
    assert facts(outcome.study.get_trials()) == facts(undisturbed)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_pruned_candidates_give_back_what_they_did_not_use(digits: DataSet, tmp_path: Path, workers: int) -> None:
    ways = {"sampler": "random", "pruner": "asha"}
    studies = Studies(digits, tmp_path, trials=14, recipe=CYCLES, space=BY_RATE, ways=ways)
    full = [by_hand(trial.user_attrs["macs"], 12) for trial in studies.whole]
    some = sum(by_hand(trial.user_attrs["macs"], trial.user_attrs["epochs"]) for trial in studies.whole[:8])
    most, meter = some + full[8], Meter()
    outcome = studies.search("limited", most=most, workers=workers, watcher=meter)
    count = outcome.trained
    assert outcome.end == "train flops"
    assert {trial.user_attrs["candidate"] for trial in trained(outcome)} == {
        trial.user_attrs["candidate"] for trial in studies.whole[:count]
    }
    assert any(trial.user_attrs["status"] == "stopped" for trial in trained(outcome))
    if workers == 1:  # Two may prune others.
        assert sum(full[:count]) > most, "more was trained than without pruning"
    assert used(tmp_path / "limited") == outcome.train_flops == meter.used
    assert meter.peak <= most, "also if none of those in training had been pruned"
    assert used(tmp_path / "limited") + full[count] > most


@pytest.mark.slow
def test_two_workers_resume_with_a_larger_limit(digits: DataSet, tmp_path: Path) -> None:
    studies = Studies(digits, tmp_path, trials=5, ways={"sampler": "random"})
    costs = [by_hand(trial.user_attrs["macs"], 1) for trial in studies.whole]
    for most, count in ((sum(costs[:3]) - 1, 2), (sum(costs[:5]), 5)):
        meter = Meter()
        outcome = studies.search("limited", most=most, workers=2, watcher=meter)
        assert (outcome.end, outcome.trained) == ("train flops" if count < 5 else "done", count)
        assert used(tmp_path / "limited") == sum(costs[:count])
        assert meter.peak <= most
    assert sorted(facts(trained(outcome)), key=str) == sorted(facts(studies.whole), key=str)


def test_a_candidate_waits_for_what_one_in_training_may_give_back(digits: DataSet, tmp_path: Path) -> None:
    # Both networks diverge in their first epoch, which is not counted.
    recipe = tiny_recipe(epochs=9, learning_rate=1e30)
    studies = Studies(digits, tmp_path, trials=2, recipe=recipe, space=PAIR_SPACE, ways={"sampler": "random"})
    assert [trial.user_attrs["epochs"] for trial in studies.whole] == [0, 0]
    most, meter = max(by_hand(trial.user_attrs["macs"], 9) for trial in studies.whole), Meter()
    outcome = studies.search("limited", most=most, workers=2, watcher=meter)
    assert (outcome.end, outcome.trained, outcome.train_flops) == ("done", 2, 0)
    assert meter.peak == most, "never both at the same time"


def test_an_interrupted_candidate_is_counted_once(digits: DataSet, tmp_path: Path) -> None:
    studies = Studies(digits, tmp_path, trials=4, recipe=tiny_recipe(epochs=3), ways={"sampler": "random"})
    costs = [by_hand(trial.user_attrs["macs"], 3) for trial in studies.whole]
    with pytest.raises(KeyboardInterrupt):
        studies.search("limited", most=sum(costs[:2]), watcher=Watcher(stop_at=2))
    # It has used operations, but may not go on with fewer than it needs.
    lower = studies.search("limited", most=sum(costs[:2]) - 1)
    assert (lower.end, lower.trained, lower.refused) == ("train flops", 1, costs[1])
    outcome = studies.search("limited", most=sum(costs[:2]))
    assert (outcome.end, outcome.trained) == ("train flops", 2)
    assert used(tmp_path / "limited") == outcome.train_flops == sum(costs[:2])
    assert facts(trained(studies.search("limited"))[2:]) == [
        (trial.number + 1, *rest) for trial, (_, *rest) in zip(studies.whole[2:], facts(studies.whole[2:]), strict=True)
    ]


def test_a_limit_that_allows_no_candidate_is_one_line(digits: DataSet, tmp_path: Path) -> None:
    run_search = SearchRunner(digits, tmp_path)
    # 6 x 78,416 MACs x 64 images x 1 epoch = 30,111,744, rounded up to three digits.
    with pytest.raises(InputError) as caught:
        run_search(trials=1, enqueued=(TINY,), ways={"max_train_flops": 30_111_743 / PFLOP})
    line = "max_train_flops = 3.0111743e-08: the first candidate needs 3.02e-08 PFLOP"
    assert str(caught.value) == line
    outcome = run_search(trials=1, enqueued=(TINY,), ways={"max_train_flops": 30_111_744 / PFLOP})
    assert (outcome.end, outcome.train_flops) == ("done", 30_111_744)


def test_trials_without_their_operations_cannot_be_limited(digits: DataSet, tmp_path: Path) -> None:
    run_search = SearchRunner(digits, tmp_path)
    (trial,) = trained(run_search(trials=1))
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute("DELETE FROM trial_user_attributes WHERE key = 'train_flops'")
    connection.close()
    line = f"max_train_flops = 1.0: trial #{trial.number} of the study has no training operations"
    with pytest.raises(InputError, match=re.escape(line)):
        run_search(trials=2, ways={"max_train_flops": 1})
    assert run_search(trials=2).trained == 2
