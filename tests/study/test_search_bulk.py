"""Bulk reads and writes of trials, compared with Optuna's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from budgetnet.study.bulk import TrialTables, read_study_attributes, write_study_attributes
from budgetnet.study.storage import default_storage, open_storage

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


@pytest.fixture
def plain(storage: RDBStorage) -> Iterator[RDBStorage]:
    """The same storage as Optuna itself reads and writes it."""
    plain = RDBStorage(storage.url)
    yield plain
    plain.remove_session()
    plain.engine.dispose()


def study_of(storage: RDBStorage, name: str = "study") -> tuple[optuna.Study, int]:
    """A study, to be read by Optuna itself, and its id."""
    optuna.create_study(storage=storage, study_name=name, direction="maximize")
    return optuna.load_study(storage=storage.url, study_name=name), storage.get_study_id_from_name(name)


def trial_of(state: TrialState) -> FrozenTrial:
    trial = create_trial(
        state=state,
        value=0.75 if state == TrialState.COMPLETE else None,
        params=PARAMS,
        distributions=DISTRIBUTIONS,
        constraints={"params": -0.25, "macs": 1.5},
        intermediate_values={1: 0.5, 3: 0.625},
        user_attrs={"spec": "ab" * 32, "params": 12, "used": 0.5, "enqueued": {"stages": [1, None]}},
        system_attrs={"NSGAIISampler:generation": 2},
    )
    trial.datetime_start = datetime(2026, 7, 1, 12, 30, 15, 123456)
    return trial


@contextmanager
def tables_of(storage: RDBStorage, study_id: int) -> Iterator[TrialTables]:
    with storage.engine.begin() as connection:
        yield TrialTables(connection, study_id)


def insert(storage: RDBStorage, study_id: int, trial: FrozenTrial, *, number: int = 0) -> int:
    trial.number = number
    with tables_of(storage, study_id) as tables:
        return tables.insert(trial)


def facts(trial: FrozenTrial) -> dict[str, Any]:
    kept = {name: getattr(trial, name) for name in ("number", "state", "values", "params", "distributions")}
    kept |= {
        name: getattr(trial, name) for name in ("user_attrs", "system_attrs", "intermediate_values", "constraints")
    }
    return kept | {"start": trial.datetime_start, "complete": trial.datetime_complete}


def written_out(trials: list[FrozenTrial]) -> str:
    """Trials in words, in which what is no number equals itself; their mappings in one order."""
    ordered = (
        {name: sorted(fact.items()) if isinstance(fact, dict) else fact for name, fact in facts(trial).items()}
        for trial in trials
    )
    return "\n".join(map(repr, ordered))


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_inserted_trial_equals_optunas(storage: RDBStorage, plain: RDBStorage, state: TrialState) -> None:
    ours, ours_id = study_of(storage, "ours")
    theirs, theirs_id = study_of(storage, "theirs")
    for number in range(2):
        trial = trial_of(state)
        insert(storage, ours_id, trial, number=number)
        plain.create_new_trial(theirs_id, template_trial=trial)
    assert [facts(trial) for trial in ours.get_trials()] == [facts(trial) for trial in theirs.get_trials()]


def test_closed_trial_equals_optunas(storage: RDBStorage, plain: RDBStorage) -> None:
    ours, ours_id = study_of(storage, "ours")
    theirs, theirs_id = study_of(storage, "theirs")
    ends = ((TrialState.COMPLETE, 0.9), (TrialState.PRUNED, None), (TrialState.PRUNED, 0.625), (TrialState.FAIL, None))
    for number, (state, value) in enumerate(ends):
        running = trial_of(TrialState.RUNNING)
        ended = {"ended": "as it should", "params": 13}
        moment = datetime(2026, 7, 1, 13, 0, 0, 1)
        written = insert(storage, ours_id, running, number=number)
        with tables_of(storage, ours_id) as tables:
            tables.close(
                written, state=state, values=None if value is None else [value], user_attrs=ended, ended=moment
            )
        assert ours.get_trials()[-1].datetime_complete == moment
        other = plain.create_new_trial(theirs_id, template_trial=running)
        for key, fact in ended.items():
            plain.set_trial_user_attr(other, key, fact)
        plain.set_trial_state_values(other, state=state, values=None if value is None else [value])
    pairs = zip(ours.get_trials(), theirs.get_trials(), strict=True)
    assert all(facts(one) | {"complete": 0} == facts(other) | {"complete": 0} for one, other in pairs)


def test_transaction_that_fails_writes_nothing(storage: RDBStorage) -> None:
    study, study_id = study_of(storage)
    first = insert(storage, study_id, trial_of(TrialState.RUNNING))
    before = study.get_trials()
    with pytest.raises(TypeError), tables_of(storage, study_id) as tables:
        tables.report(first, step=7, value=0.5, system_attrs={})
        tables.close(first, state=TrialState.FAIL, values=None, user_attrs={"ended": "at once"}, ended=datetime.now())
        tables.insert(trial_of(TrialState.PRUNED))
        tables.report(first, step=8, value=0.5, system_attrs={"not stored": object()})
    assert study.get_trials() == before
    with tables_of(storage, study_id) as tables:
        assert tables.last_id() == first


def test_tables_of_a_deleted_study_are_refused(storage: RDBStorage, plain: RDBStorage) -> None:
    _, study_id = study_of(storage)
    with tables_of(storage, study_id) as tables:
        assert tables.last_id() is None
    plain.delete_study(study_id)
    with pytest.raises(KeyError), tables_of(storage, study_id):
        raise AssertionError("there is no study")


def test_read_trials_equal_optunas(storage: RDBStorage, plain: RDBStorage) -> None:
    _, study_id = study_of(plain)
    _, other = study_of(plain, "other")
    for state in (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING):
        trial = trial_of(state)
        trial.intermediate_values |= {4: float("inf"), 5: float("-inf"), 6: float("nan"), 7: 0.1}
        plain.create_new_trial(study_id, template_trial=trial)
        plain.create_new_trial(other, template_trial=trial)
    plain.create_new_trial(study_id)
    assert written_out(storage.get_all_trials(study_id)) == written_out(plain.get_all_trials(study_id))
    ended = (TrialState.COMPLETE, TrialState.FAIL)
    ours, theirs = (kept.get_all_trials(study_id, states=ended) for kept in (storage, plain))
    assert written_out(ours) == written_out(theirs)
    assert len(ours) == 2
    with pytest.raises(KeyError):
        storage.get_all_trials(other + 1)


def test_rereading_a_study_returns_new_trials(storage: RDBStorage, plain: RDBStorage) -> None:
    _, study_id = study_of(plain)
    study = optuna.load_study(storage=storage, study_name="study")
    first = plain.create_new_trial(study_id, template_trial=trial_of(TrialState.RUNNING))
    assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING]
    plain.create_new_trial(study_id, template_trial=trial_of(TrialState.COMPLETE))
    assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING, TrialState.COMPLETE]
    plain.set_trial_state_values(first, TrialState.COMPLETE, [0.25])
    assert written_out(study.get_trials()) == written_out(plain.get_all_trials(study_id))


def test_report_equals_optunas(storage: RDBStorage, plain: RDBStorage) -> None:
    _, study_id = study_of(plain)
    ours, theirs = (plain.create_new_trial(study_id, template_trial=trial_of(TrialState.RUNNING)) for _ in range(2))
    for step, value in ((2, 0.5), (4, float("nan")), (5, float("inf"))):
        with tables_of(storage, study_id) as tables:
            tables.report(ours, step=step, value=value, system_attrs={f"rung_{step}": step / 8})
        plain.set_trial_intermediate_value(theirs, step, value)
        plain.set_trial_system_attr(theirs, f"rung_{step}", step / 8)
    reports = [sorted(plain.get_trial(trial_id).intermediate_values.items()) for trial_id in (ours, theirs)]
    assert repr(reports[0]) == repr(reports[1])
    assert plain.get_trial(ours).system_attrs == plain.get_trial(theirs).system_attrs


def test_attributes_of_a_study_are_those_that_optuna_reads(storage: RDBStorage, plain: RDBStorage) -> None:
    _, study_id = study_of(plain)
    _, other = study_of(plain, "other")
    for each in (study_id, other):
        plain.set_study_system_attr(each, "a_b:1", {"kept": [1, None]})
        plain.set_study_system_attr(each, "axb:2", "not asked for, although _ stands for any letter in SQL")
    write_study_attributes(storage, study_id, {"a_b:1": 0.5, "c": "new"})
    theirs = plain.get_study_system_attrs(study_id)
    assert (theirs.pop("axb:2")[:3], theirs) == ("not", {"a_b:1": 0.5, "c": "new"})
    assert plain.get_study_system_attrs(other)["a_b:1"] == {"kept": [1, None]}
    assert read_study_attributes(storage, other, "a_b", "c") == {"a_b:1": {"kept": [1, None]}}
    with pytest.raises(TypeError):
        write_study_attributes(storage, study_id, {"c": "not stored", "d": object()})
    assert plain.get_study_system_attrs(study_id)["c"] == "new", "all or nothing"
    many = {f"key {number}": number for number in range(1_200)}
    write_study_attributes(storage, other, many)
    assert read_study_attributes(storage, other, "key") == many
