"""Whole trials written at once, against the same trials written by Optuna itself."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import text

from budgetnet.search.bulk import close_trial, insert_trial
from budgetnet.search.study import default_storage, open_storage

DISTRIBUTIONS: dict[str, Any] = {
    "width": IntDistribution(8, 64, step=8),
    "rate": FloatDistribution(1e-3, 1.0, log=True),
    "block": CategoricalDistribution(("basic", "preact")),
    "ratio": CategoricalDistribution((0.0, 0.25)),
}
PARAMS = {"width": 24, "rate": 0.05, "block": "preact", "ratio": 0.25}


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RDBStorage]:
    on_server = request.param == "postgresql"
    url = request.getfixturevalue("postgres").new_database() if on_server else default_storage(tmp_path)
    storage = open_storage(url, create=True)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def study_of(storage: RDBStorage, name: str = "study") -> tuple[optuna.Study, int]:
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    return study, storage.get_study_id_from_name(name)


def trial_of(state: TrialState) -> FrozenTrial:
    trial = create_trial(
        state=state,
        value=0.75 if state == TrialState.COMPLETE else None,
        params=PARAMS,
        distributions=DISTRIBUTIONS,
        constraints={"params": -0.25, "macs": 1.5},
        intermediate_values={1: 0.5, 3: 0.625},
        user_attrs={"spec": "ab" * 32, "params": 12, "used": 0.5, "by_hand": {"stages": [1, None]}},
        system_attrs={"NSGAIISampler:generation": 2},
    )
    trial.datetime_start = datetime(2026, 7, 1, 12, 30, 15, 123456)
    return trial


def facts(trial: FrozenTrial) -> dict[str, Any]:
    kept = {name: getattr(trial, name) for name in ("number", "state", "values", "params", "distributions")}
    kept |= {
        name: getattr(trial, name) for name in ("user_attrs", "system_attrs", "intermediate_values", "constraints")
    }
    return kept | {"start": trial.datetime_start, "complete": trial.datetime_complete}


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_a_trial_is_what_optuna_would_have_written(storage: RDBStorage, state: TrialState) -> None:
    ours, ours_id = study_of(storage, "ours")
    theirs, theirs_id = study_of(storage, "theirs")
    for number in range(2):
        trial = trial_of(state)
        assert insert_trial(storage, ours_id, trial).number == number
        storage.create_new_trial(theirs_id, template_trial=trial)
    assert [facts(trial) for trial in ours.get_trials()] == [facts(trial) for trial in theirs.get_trials()]


def test_a_trial_ends_as_optuna_would_have_ended_it(storage: RDBStorage) -> None:
    ours, ours_id = study_of(storage, "ours")
    theirs, theirs_id = study_of(storage, "theirs")
    for state, value in ((TrialState.COMPLETE, 0.9), (TrialState.PRUNED, None), (TrialState.FAIL, None)):
        running = trial_of(TrialState.RUNNING)
        written = insert_trial(storage, ours_id, running)
        ended = {"ended": "as it should", "params": 13}
        before = datetime.now()
        assert close_trial(storage, written.trial_id, state=state, value=value, user_attrs=ended)
        assert before <= (ours.get_trials()[-1].datetime_complete or before) <= datetime.now()
        other = storage.create_new_trial(theirs_id, template_trial=running)
        for key, fact in ended.items():
            storage.set_trial_user_attr(other, key, fact)
        storage.set_trial_state_values(other, state=state, values=None if value is None else [value])
    pairs = zip(ours.get_trials(), theirs.get_trials(), strict=True)
    assert all(facts(one) | {"complete": 0} == facts(other) | {"complete": 0} for one, other in pairs)


def test_a_trial_ends_once(storage: RDBStorage) -> None:
    study, study_id = study_of(storage)
    written = insert_trial(storage, study_id, trial_of(TrialState.RUNNING))
    assert close_trial(storage, written.trial_id, state=TrialState.COMPLETE, value=0.5, user_attrs={"ended": "first"})
    ended = study.get_trials()[0]
    assert not close_trial(storage, written.trial_id, state=TrialState.FAIL, value=None, user_attrs={"ended": "again"})
    assert study.get_trials()[0] == ended


def test_trials_written_at_once_have_numbers_of_their_own(storage: RDBStorage) -> None:
    study, study_id = study_of(storage)
    _, other = study_of(storage, "other")
    with ThreadPoolExecutor(4) as threads:
        ids = [other, *[study_id] * 40, other]
        written = list(threads.map(lambda number: insert_trial(storage, number, trial_of(TrialState.PRUNED)), ids))
    assert sorted(each.number for each in written[1:-1]) == list(range(40))
    assert [trial.number for trial in study.get_trials()] == list(range(40))


def test_only_a_running_trial_has_a_heartbeat(storage: RDBStorage) -> None:
    _, study_id = study_of(storage)
    running = insert_trial(storage, study_id, trial_of(TrialState.RUNNING))
    insert_trial(storage, study_id, trial_of(TrialState.PRUNED))
    with storage.engine.begin() as connection:
        rows = connection.execute(text("SELECT trial_id, heartbeat FROM trial_heartbeats")).all()
    assert [row[0] for row in rows] == [running.trial_id]
    assert rows[0][1] is not None
