"""Trials that a sampler keeps of a long study, against a plain sort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial
from search_support import MAX_PARAMS, opened_store, optuna_study
from support import TINY_SPACE, prepare, restarts, tiny_recipe

from budgetnet.data import DataSet
from budgetnet.study.bulk import TrialTables
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import make_settings
from budgetnet.study.proposer import Proposals
from budgetnet.study.sampling.optuna_sampler import REMEMBERED
from budgetnet.study.space import SearchSpace
from budgetnet.study.storage import default_storage, open_storage, open_study

CYCLES = tiny_recipe(epochs=12, schedule=restarts(4, cycle_factor=2))
ENDED, BEST = 450, 25


def long_study(digits: DataSet, out: Path, sampler: str) -> tuple[Proposals, list[Any]]:
    """A study of candidates that ended in every way, and those of them in the order in which they ended."""
    asked: dict[str, Any] = {"recipe": CYCLES, "space": SearchSpace(**TINY_SPACE), "sizing": "reject"}
    settings = make_settings(
        data := prepare(digits, CYCLES), SearchConfig(max_params=MAX_PARAMS, sampler=sampler, **asked)
    )
    storage = open_storage(default_storage(out), create=True)
    study = open_study(storage, "study", settings)
    study_id = storage.get_study_id_from_name("study")
    space = settings.space.proposed("reject")
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    chance = np.random.default_rng(0)
    for number in range(ENDED):
        kind = ("complete", "pruned early", "pruned late", "over budget", "failed")[number % 5]
        complete = kind == "complete"
        value = round(float(chance.random()), 6)
        trial = create_trial(
            state=TrialState.COMPLETE if complete else TrialState.FAIL if kind == "failed" else TrialState.PRUNED,
            value=value if complete else None,
            params=drawn.ask(space).params,
            distributions=space,
            constraints={"params": 0.5 if kind == "over budget" else -0.5},
            intermediate_values={1: value} | ({2: value} if kind == "pruned late" else {}) if "pruned" in kind else {},
            user_attrs={"candidate": str(number), "trained": kind not in ("over budget", "failed"), "ended": kind},
        )
        trial.number = number
        with storage.engine.begin() as connection:
            TrialTables(connection, study_id).insert(trial)
    with opened_store(study, out) as store:
        return Proposals(store, settings, data), study.get_trials()


def best_and_latest(trials: list[Any]) -> list[Any]:
    told = [trial for trial in trials if trial.state != TrialState.FAIL]
    complete = sorted((each for each in told if each.value is not None), key=lambda each: -(each.value or 0))
    best = [each.number for each in complete if each.state == TrialState.COMPLETE][:BEST]
    latest = [each.number for each in told if each.number not in best][BEST - REMEMBERED :]
    return [each for each in told if each.number in {*best, *latest}]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_best_and_latest_trials_are_kept_as_they_came(digits: DataSet, tmp_path: Path, sampler: str) -> None:
    proposals, trials = long_study(digits, tmp_path, sampler)
    proposals.next()
    remembered = [trial.params for trial in optuna_study(proposals).get_trials() if trial.state != TrialState.RUNNING]
    # A search that was not interrupted had one too many after the 401st.
    expected = best_and_latest(trials[:401]) + [trial for trial in trials[401:] if trial.state != TrialState.FAIL]
    assert len(expected) > REMEMBERED
    assert remembered == [each.params for each in expected]


def test_tpe_best_trials_equal_those_of_all_trials(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposals, trials = long_study(digits, tmp_path, "tpe")
    good: list[Any] = []
    build = TPESampler._build_parzen_estimator

    def listen(self: Any, study: Any, space: Any, chosen: Any, *, handle_below: bool) -> Any:
        if handle_below:
            good.append([trial.params for trial in chosen])
        return build(self, study, space, chosen, handle_below)

    monkeypatch.setattr(TPESampler, "_build_parzen_estimator", listen)
    proposals.next()
    whole = optuna.create_study(direction="maximize", sampler=TPESampler(seed=0))
    whole.add_trials([trial for trial in trials if trial.state != TrialState.FAIL])
    whole.ask(optuna_study(proposals).get_trials()[0].distributions)
    assert good[0] == good[1]
    assert len(good[0]) == BEST


def test_nsga2_keeps_all_trials(digits: DataSet, tmp_path: Path) -> None:
    proposals, trials = long_study(digits, tmp_path, "nsga2")
    proposals.next()
    ended = [trial for trial in optuna_study(proposals).get_trials() if trial.state != TrialState.RUNNING]
    assert len(ended) == sum(trial.state != TrialState.FAIL for trial in trials)
