"""Search with an SQLite file: rejected, trained, duplicate and interrupted candidates."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState
from search_support import MAX_PARAMS, SearchRunner, Watcher, opened_store
from support import PAIR_SPACE, TINY_SPACE, prepare, restarts, snapshot, tiny_recipe

from budgetnet.common.errors import OverBudgetError, RecordError
from budgetnet.common.files import read_mapping
from budgetnet.data import DataSet
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.store import RunFolder
from budgetnet.study.driver import SearchOutcome
from budgetnet.study.lock import StudyLock
from budgetnet.study.proposer import Proposals
from budgetnet.study.reading import read_trials
from budgetnet.study.space import SearchSpace
from budgetnet.study.storage import default_storage, open_storage, study_settings
from budgetnet.study.trials import count_outcomes, one_per_candidate
from budgetnet.training.step import Execution
from budgetnet.training.trainer import train


class FullDiskError(OSError):
    """What a disk without space raises."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, "No space left on device")


@pytest.fixture
def run_search(digits: DataSet, tmp_path: Path) -> SearchRunner:
    return SearchRunner(digits, tmp_path)


def trials_of(outcome: SearchOutcome) -> list[FrozenTrial]:
    return outcome.study.get_trials(deepcopy=False)


def split_by_outcome(trials: list[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    over = [trial for trial in trials if trial.user_attrs["params"] > MAX_PARAMS]
    return over, [trial for trial in trials if trial not in over]


def test_over_budget_trial_is_pruned_with_constraints_and_not_trained(run_search: SearchRunner, tmp_path: Path) -> None:
    watcher = Watcher()
    outcome = run_search(trials=4, watcher=watcher)
    over, within = split_by_outcome(trials_of(outcome))
    assert over, "the case needs candidates over budget"
    for trial in over:
        assert trial.state == TrialState.PRUNED
        assert trial.constraints == {"params": trial.user_attrs["params"] / MAX_PARAMS - 1}
        assert trial.constraints["params"] > 0
        assert not {"run", "trained"} & set(trial.user_attrs)
        assert trial.intermediate_values == {}
    trained = [trial for trial in within if trial.user_attrs.get("trained")]
    assert len(trained) == 4
    assert all(trial.state == TrialState.COMPLETE and trial.constraints["params"] <= 0 for trial in trained)
    runs = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert runs == {trial.user_attrs["run"] for trial in trained}
    assert watcher.turned == len(over)
    assert all(candidate.params <= MAX_PARAMS for candidate in watcher.networks)
    best = outcome.study.best_trial
    assert best.user_attrs["params"] <= MAX_PARAMS
    assert best.value == max(trial.value for trial in trained if trial.value is not None)


def test_stored_costs_match_built_networks(run_search: SearchRunner, tmp_path: Path) -> None:
    outcome = run_search(trials=3)
    for trial in trials_of(outcome):
        params = {name: trial.params[name] for name in SearchSpace(**TINY_SPACE).distributions}
        spec = SearchSpace(**TINY_SPACE).spec(params, input_shape=(1, 8, 8), num_classes=10)
        built = sum(parameter.numel() for parameter in spec.build().parameters())
        assert trial.user_attrs["params"] == built
        assert trial.user_attrs["spec"] == spec.digest
        if trial.user_attrs.get("trained"):
            record = RunFolder(tmp_path / trial.user_attrs["run"]).load()
            assert record.identity.spec.digest == spec.digest
            assert trial.value == record.result.validation_accuracy
            assert trial.user_attrs["validation_correct"] == record.result.validation_correct


def test_every_limit_has_its_own_constraint(run_search: SearchRunner) -> None:
    outcome = run_search(trials=2, max_macs=400_000, max_activations=8_000)
    allowed = {"params": MAX_PARAMS, "macs": 400_000, "activations": 8_000}
    outcomes = set()
    for trial in trials_of(outcome):
        expected = {limit: trial.user_attrs[limit] / most - 1 for limit, most in allowed.items()}
        assert trial.constraints == pytest.approx(expected)
        fits = max(expected.values()) <= 0
        outcomes.add(fits)
        assert (trial.state == TrialState.COMPLETE) is fits
    assert outcomes == {True, False}


def test_repeated_search_trains_nothing(run_search: SearchRunner, tmp_path: Path) -> None:
    first = trials_of(run_search(trials=3))
    before = snapshot(tmp_path)
    watcher = Watcher()
    again = run_search(trials=3, watcher=watcher)
    assert again.trained == 3
    assert again.end == "done"
    assert (watcher.networks, watcher.turned) == ([], 0)
    assert trials_of(again) == first
    assert {name: content for name, (_, content) in snapshot(tmp_path).items()} == {
        name: content for name, (_, content) in before.items()
    }


def test_more_trials_continue_the_study(run_search: SearchRunner) -> None:
    first = trials_of(run_search(trials=2))
    watcher = Watcher()
    more = run_search(trials=5, watcher=watcher)
    assert trials_of(more)[: len(first)] == first
    assert len(watcher.networks) == 3
    digests = [trial.user_attrs["spec"] for trial in trials_of(more) if trial.user_attrs.get("trained")]
    assert len(set(digests)) == 5, "no network is trained twice"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted_candidate_resumes_from_checkpoint(
    run_search: SearchRunner, tmp_path: Path, error: type[BaseException]
) -> None:
    recipe = tiny_recipe(epochs=3)
    with pytest.raises(error):
        run_search(trials=4, recipe=recipe, watcher=Watcher(stop_at=2, error=error))
    outcome = run_search(trials=4, recipe=recipe)
    trials = trials_of(outcome)
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
    (stopped,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    (retry,) = [trial for trial in trials if "retry_of" in trial.user_attrs]
    assert stopped.user_attrs["ended"] == "interrupted"
    assert retry.user_attrs["retry_of"] == stopped.number
    assert (retry.params, retry.user_attrs["run"]) == (stopped.params, stopped.user_attrs["run"])
    assert retry.state == TrialState.COMPLETE
    rows = read_trials(outcome.study)
    assert {row.number: row.resumed_in for row in rows if row.outcome == "resumed"} == {stopped.number: retry.number}
    assert count_outcomes(rows)["interrupted"] == 0
    assert stopped.number not in {row.number for row in one_per_candidate(rows)}
    assert outcome.trained == sum(bool(trial.user_attrs.get("trained")) for trial in trials) == 4
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 4
    assert (
        len([trial for trial in trials_of(run_search(trials=4, recipe=recipe)) if "retry_of" in trial.user_attrs]) == 1
    )


def test_failed_candidate_ends_the_search_and_is_not_sampled_again(run_search: SearchRunner) -> None:
    def breaks_down(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no network is broken enough to be asked for real")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr("budgetnet.engines.running.train", breaks_down)
        run_search(trials=2, max_params=None)
    trials = trials_of(run_search(trials=2, max_params=None))
    (broken,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert "RuntimeError" in broken.user_attrs["ended"]
    assert all("retry_of" not in trial.user_attrs for trial in trials)
    assert [trial.params for trial in trials].count(broken.params) == 1


def test_search_stops_after_too_many_duplicates(run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budgetnet.study.driver.MAX_REJECTED", 12)
    outcome = run_search(trials=5, space=PAIR_SPACE)
    trials = trials_of(outcome)
    assert (outcome.trained, outcome.end) == (2, "exhausted")
    values = {trial.user_attrs["spec"]: trial.value for trial in trials if trial.user_attrs.get("trained")}
    repeats = [trial for trial in trials if not trial.user_attrs.get("trained")]
    assert {trial.user_attrs["spec"] for trial in repeats} == set(values)
    assert len(repeats) == 2, "each is stored once"
    assert outcome.rejected == {"trained before": 12}, "every proposal counts"
    assert all(trial.value == values[trial.user_attrs["spec"]] for trial in repeats)
    assert {trial.user_attrs["ended"] for trial in repeats} == {"duplicate"}
    watcher = Watcher()
    again = run_search(trials=5, space=PAIR_SPACE, watcher=watcher)
    assert (again.trained, again.end) == (2, "exhausted")
    assert not watcher.networks, "what an earlier search trained is known as well"
    assert trials_of(again) == trials, "an exhausted study does not grow"
    assert count_outcomes(read_trials(outcome.study)) == {
        "trained": 2,
        "pruned": 0,
        "over_budget": 0,
        "duplicate": 2,
        "no_result": 0,
        "running": 0,
        "interrupted": 0,
        "skipped": 0,
    }


def test_diverged_candidates_do_not_end_the_search(run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budgetnet.study.driver.MAX_REJECTED", 12)
    watcher = Watcher()
    outcome = run_search(trials=3, space=PAIR_SPACE, recipe=tiny_recipe(learning_rate=1e30), watcher=watcher)
    assert [result.status for result in watcher.results] == ["diverged", "diverged"]
    assert (outcome.trained, outcome.end) == (2, "exhausted")
    assert {trial.state for trial in trials_of(outcome)} == {TrialState.PRUNED}
    with pytest.raises(ValueError, match="does not exist"):
        outcome.study.best_trial  # noqa: B018 - the property is what is asked


class ScarceMemory:
    """A trainer on a device that cannot hold the first candidate's batches in fewer than so many parts."""

    def __init__(self, *, needed_parts: int) -> None:
        self.parts: list[int] = []
        self._needed = needed_parts
        self._first: ModelSpec | None = None

    def __call__(self, spec: ModelSpec, *arguments: Any, execution: Execution, **options: Any) -> Any:
        self._first = self._first or spec
        self.parts.append(execution.parts)
        if spec == self._first and execution.parts < self._needed:
            raise torch.OutOfMemoryError("no device is small enough to be asked for real")
        return train(spec, *arguments, execution=execution, **options)


def test_out_of_memory_candidate_does_not_end_the_search(
    run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = ScarceMemory(needed_parts=3)
    monkeypatch.setattr("budgetnet.engines.running.train", trainer)
    watcher = Watcher()
    outcome = run_search(trials=2, watcher=watcher)
    assert len(watcher.results) == 2
    assert trainer.parts == [1, 2, 1, 1]
    first = next(trial for trial in trials_of(outcome) if "run" in trial.user_attrs)
    assert (first.state, first.user_attrs["ended"]) == (TrialState.PRUNED, "out of memory")
    assert outcome.trained == 2
    assert count_outcomes(read_trials(outcome.study))["no_result"] == 1


def test_out_of_memory_retries_with_half_batches(
    run_search: SearchRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetnet.engines.running.train", ScarceMemory(needed_parts=2))
    outcome = run_search(trials=2)
    halved, whole = (trial for trial in trials_of(outcome) if trial.user_attrs.get("trained"))
    assert halved.user_attrs["batch_parts"] == 2
    assert "batch_parts" not in whole.user_attrs
    for trial, parts in ((halved, 2), (whole, 1)):
        (start,) = read_mapping(tmp_path / trial.user_attrs["run"] / "environment.json")["starts"]
        assert start["execution"]["parts"] == parts


def test_search_stops_if_every_candidate_is_out_of_memory(
    run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks_memory(*_: Any, **__: Any) -> Any:
        raise RuntimeError("MPS backend out of memory")

    monkeypatch.setattr("budgetnet.engines.running.train", lacks_memory)
    monkeypatch.setattr("budgetnet.study.driver.MAX_REJECTED", 4)
    outcome = run_search(trials=1, max_params=None)
    assert (outcome.trained, outcome.end, outcome.rejected) == (0, "exhausted", {"without a result": 4})


def test_candidate_resumes_after_full_disk(run_search: SearchRunner) -> None:
    with pytest.raises(OSError, match="No space"):
        run_search(trials=1, max_params=None, watcher=Watcher(stop_at=1, error=FullDiskError))
    first, second = trials_of(run_search(trials=1, max_params=None))
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert second.user_attrs["retry_of"] == first.number
    assert second.user_attrs["run"] == first.user_attrs["run"]


def test_reports_before_divergence_are_not_a_result(run_search: SearchRunner) -> None:
    study = run_search(trials=1, space=PAIR_SPACE).study
    (first,) = study.get_trials()
    with opened_store(study, run_search.out) as store:
        settings = study_settings(study)
        proposals = Proposals(store, settings, prepare(run_search.digits, settings.recipe))
        while (candidate := proposals.next().candidate).key in store.results:
            pass
        trial = store.begin(candidate, run="r", seed=0)
        store.report(trial, value=0.25, step=1)
        store.finish(trial, value=None, facts={"trained": True, "ended": "the loss is nan", "status": "diverged"})
        store.flush()
    stored = study.get_trials()[-1]
    assert (stored.state, stored.value) == (TrialState.PRUNED, 0.25), "the last report, as Optuna has it"
    assert study.best_trial.number == first.number
    _, row = read_trials(study)
    assert (row.outcome, row.accuracy, row.trained) == ("no result", None, True)


def test_candidates_are_reported_at_the_ends_of_cycles_only(run_search: SearchRunner, tmp_path: Path) -> None:
    outcome = run_search(trials=1, recipe=tiny_recipe(epochs=4, schedule=restarts(1, cycle_factor=2)))
    trial = next(trial for trial in trials_of(outcome) if trial.user_attrs.get("trained"))
    curves = RunFolder(tmp_path / trial.user_attrs["run"]).load().curves
    assert trial.intermediate_values == {1: curves[0].validation_accuracy, 3: curves[2].validation_accuracy}


@pytest.mark.parametrize("limits", [{"max_params": 100}, {"max_macs": 1_000}, {"max_activations": 50}])
def test_infeasible_budget_raises_before_training(run_search: SearchRunner, tmp_path: Path, limits: Any) -> None:
    with pytest.raises(OverBudgetError, match=f"no network of the space fits.* {next(iter(limits))[4:]} exceed"):
        run_search(trials=1, out=tmp_path / "out", **limits)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", [None, "elsewhere"])
def test_second_search_on_a_study_raises(run_search: SearchRunner, tmp_path: Path, folder: str | None) -> None:
    run_search(trials=1)
    storage = open_storage(default_storage(tmp_path), create=False)
    out = tmp_path / folder if folder else None
    with FileLock(StudyLock(storage, "study", tmp_path).path):
        with pytest.raises(RecordError, match="another search is running"):
            run_search(trials=2, out=out)
        assert run_search(trials=1, name="other").trained == 1
    assert run_search(trials=2, out=out).trained == 2


def test_same_config_samples_same_candidates(digits: DataSet, tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        drawn.append([trial.params for trial in trials_of(SearchRunner(digits, tmp_path / name)(trials=3))])
    assert drawn[0] == drawn[1]


def test_running_trial_of_any_host_is_resumed_at_once(run_search: SearchRunner, tmp_path: Path) -> None:
    study = run_search(trials=1).study
    trained = next(trial for trial in study.get_trials() if trial.user_attrs.get("trained"))
    far = optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trained.params,
        distributions=trained.distributions,
        user_attrs={**trained.user_attrs, "trained": False, "host": "another-machine"},
    )
    storage = open_storage(default_storage(tmp_path), create=False)
    storage.create_new_trial(storage.get_study_id_from_name("study"), template_trial=far)
    assert [trial.outcome for trial in read_trials(study)][-1] == "interrupted"
    with StudyLock(storage, "study", tmp_path).held():
        assert [trial.outcome for trial in read_trials(study)][-1] == "running"
    trials = trials_of(run_search(trials=2))
    (left,) = [trial for trial in trials if trial.user_attrs.get("host") == "another-machine"]
    assert (left.state, left.user_attrs["ended"]) == (TrialState.FAIL, "interrupted")
    assert [trial.user_attrs.get("retry_of") for trial in trials].count(left.number) == 1
