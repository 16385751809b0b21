"""What goes wrong with one candidate or one finalist, and leaves the others be."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from search_support import SearchRunner, Watcher
from support import PAIR_SPACE, TINY, EachEpoch, prepare, restarts, tiny_recipe
from test_search_finals import Case

from budgetnet.common.errors import InputError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.test_set import read_openings
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.runs.store import TEST_OPENINGS_FILE, RunFolder
from budgetnet.study import driver as driver_module
from budgetnet.study.reading import read_trials
from budgetnet.study.storage import open_storage
from budgetnet.study.trials import count_outcomes
from budgetnet.training.callbacks import Callback, Callbacks
from budgetnet.training.trainer import identify, train


@pytest.fixture
def run_search(digits: DataSet, tmp_path: Path) -> SearchRunner:
    return SearchRunner(digits, tmp_path)


def folder_of(run_search: SearchRunner) -> RunFolder:
    recipe = tiny_recipe(epochs=1)
    return RunFolder.of(identify(TINY, prepare(run_search.digits, recipe), recipe, seed=0), run_search.out)


def test_candidate_with_damaged_folder_is_skipped(run_search: SearchRunner, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_of(run_search)
    folder.path.mkdir(parents=True)
    folder.checkpoint.write_bytes(b"no checkpoint")
    watcher = Watcher()
    outcome = run_search(trials=2, enqueued=(TINY,), watcher=watcher)
    assert (outcome.trained, outcome.end) == (2, "done")
    assert len(watcher.networks) == len(watcher.results) == 2
    assert ": checkpoint" in caplog.text
    assert count_outcomes(read_trials(outcome.study))["no_result"] == 1
    assert folder.checkpoint.read_bytes() == b"no checkpoint"


class Held:
    """Holds the lock of a run, as a process that trains it, until it is told to let go."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._locked, self.let_go = folder, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with self._folder.locked():
            self._locked.set()
            self.let_go.wait(60)

    def __enter__(self) -> Held:
        self._thread.start()
        assert self._locked.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self._thread.join()


def test_a_run_that_another_process_is_training_is_waited_for_while_others_are_trained(
    run_search: SearchRunner,
) -> None:
    class Releasing(Watcher):
        def on_run_end(self, result: RunResult, *, worker: int) -> None:
            super().on_run_end(result, worker=worker)
            if len(self.results) == 2:
                held.let_go.set()

    watcher = Releasing()
    with Held(folder_of(run_search)) as held:
        outcome = run_search(trials=3, enqueued=(TINY,), watcher=watcher)
    assert (outcome.trained, outcome.end) == (3, "done")
    assert [run.identity.spec == TINY for run in watcher.networks] == [False, False, True]
    trained = [trial.user_attrs.get("trained") for trial in outcome.study.get_trials() if trial.user_attrs.get("run")]
    assert trained == [True] * 3, "it is trained in the trial that it had"


def test_a_run_that_another_process_trains_under_another_name_is_waited_for(run_search: SearchRunner) -> None:
    class Begins(Watcher):
        def on_run_end(self, result: RunResult, *, worker: int) -> None:
            super().on_run_end(result, worker=worker)
            if len(self.results) == 1:
                held.__enter__()
            else:
                held.let_go.set()

    path = folder_of(run_search).path
    held, watcher = Held(RunFolder(path.with_name(f"other-{path.name.rpartition('-')[2]}"))), Begins()
    first = TINY.replace(activation="silu")
    outcome = run_search(trials=3, enqueued=(first, TINY), watcher=watcher, deadline=time.time() + 60)
    held.__exit__()
    assert (outcome.trained, outcome.end) == (3, "done")
    assert [run.identity.spec.digest == TINY.digest for run in watcher.networks] == [False, False, True]


# Worker processes may take many seconds to start on a busy machine, and must have started before the deadline.
@pytest.mark.parametrize(("workers", "seconds"), [(1, 5), pytest.param(2, 40, marks=pytest.mark.slow)])
def test_a_search_out_of_time_leaves_a_run_of_another_process_to_be_resumed(
    run_search: SearchRunner, workers: int, seconds: float
) -> None:
    with Held(folder_of(run_search)):
        outcome = run_search(trials=1, enqueued=(TINY,), deadline=time.time() + seconds, workers=workers)
        assert (outcome.trained, outcome.end) == (0, "time")
    assert [trial.user_attrs["ended"] for trial in outcome.study.get_trials()] == ["interrupted"]
    watcher = Watcher()
    assert run_search(trials=1, watcher=watcher).trained == 1
    assert [run.identity.spec for run in watcher.networks] == [TINY]


def test_a_run_that_another_process_trains_for_long_is_left_to_it(
    run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver_module, "_BUSY_SECONDS", 0.0)
    with Held(folder_of(run_search)):
        outcome = run_search(trials=2, enqueued=(TINY,))
    assert outcome.trained == 2
    assert caplog.messages == [f"left {TINY.label}: another process is training it"]
    assert count_outcomes(read_trials(outcome.study))["no_result"] == 0
    first = outcome.study.get_trials()[0]
    assert (first.user_attrs["ended"], first.user_attrs.get("trained")) == ("in training elsewhere", None)


def test_a_test_set_is_not_opened_for_weights_that_cannot_be_read(digits: DataSet, tmp_path: Path) -> None:
    case = Case(digits, tmp_path)
    finals = case.hold(number=1, seeds=1)
    opened = len(read_openings(tmp_path / TEST_OPENINGS_FILE))
    folder = RunFolder(finals[0].records[0].folder)
    (folder.path / "test.json").unlink()
    folder.best.write_bytes(b"no weights")
    for _ in range(2):
        with pytest.raises(RecordError, match=r"best weights.*is damaged"):
            case.hold(number=1, seeds=1, watcher=Watcher())
    assert len(read_openings(tmp_path / TEST_OPENINGS_FILE)) == opened


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_study_deleted_during_a_search_is_told_in_one_line(run_search: SearchRunner, workers: int) -> None:
    def delete(_epoch: Epoch) -> None:
        storage = open_storage(run_search.storage, create=False)
        with suppress(KeyError):
            optuna.delete_study(study_name="study", storage=storage)
        storage.engine.dispose()

    with pytest.raises(RecordError, match=r"study = 'study': was deleted during the search$"):
        run_search(trials=2, watcher=EachEpoch(delete), workers=workers)
    assert run_search(trials=2).trained == 2, "the same call makes the study anew"


def test_trials_that_others_add_during_a_search_are_told_in_one_line(run_search: SearchRunner) -> None:
    class Enqueues(Watcher):
        def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
            super().on_epoch_end(epoch, worker=worker)
            if len(self.epochs) == 1:
                storage = open_storage(run_search.storage, create=False)
                optuna.load_study(study_name="study", storage=storage).enqueue_trial({"channels": 8})
                storage.engine.dispose()

    with pytest.raises(RecordError, match="another program added trials to it during the search; repeat the command"):
        run_search(trials=2, watcher=Enqueues())
    outcome = run_search(trials=2)
    assert (outcome.trained, outcome.end) == (2, "done")
    states = [trial.state for trial in outcome.study.get_trials()]
    assert states.count(TrialState.WAITING) == 1, "it is left alone"


def test_unfinished_and_failed_trials_of_others_are_left_alone(run_search: SearchRunner) -> None:
    study = run_search(trials=1).study
    others = [study.ask(), study.ask()]
    study.tell(others[1], state=TrialState.FAIL)
    outcome = run_search(trials=2)
    assert (outcome.trained, outcome.end) == (2, "done")
    kept = outcome.study.get_trials()
    assert [kept[other.number].state for other in others] == [TrialState.RUNNING, TrialState.FAIL]
    assert not any(kept[other.number].user_attrs for other in others)


def test_a_run_is_stopped_after_its_last_report_is_stored(
    run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, reports = RunFolder.finish, []

    def finish_after_looking(folder: RunFolder, result: RunResult, **kwargs: Any) -> None:
        if result.status == "stopped":
            storage = open_storage(run_search.storage, create=False)
            trials = optuna.load_study(study_name="study", storage=storage).get_trials()
            (trial,) = [each for each in trials if each.user_attrs.get("run") == folder.path.name]
            reports.append((max(trial.intermediate_values), result.epochs))
            storage.engine.dispose()
        finish(folder, result, **kwargs)

    monkeypatch.setattr(RunFolder, "finish", finish_after_looking)
    run_search(trials=8, recipe=tiny_recipe(epochs=4, schedule=restarts(1)), ways={"pruner": "asha"})
    assert reports
    assert all(last == epochs for last, epochs in reports)


def test_a_candidate_without_a_result_is_not_tried_again_by_the_same_search(
    run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetnet.study.driver.MAX_REJECTED", 20)

    def damage(spec: ModelSpec, *_: Any, **__: Any) -> Any:
        raise RecordError("checkpoint", spec.label, "is damaged")

    monkeypatch.setattr("budgetnet.engines.running.train", damage)
    outcome = run_search(trials=2, space=PAIR_SPACE)
    assert (outcome.trained, outcome.end, outcome.rejected) == (0, "exhausted", {"without a result": 20})
    trials = outcome.study.get_trials()
    assert len(trials) == len({trial.user_attrs["candidate"] for trial in trials}) == 2


def test_memory_that_runs_out_after_a_report_is_no_error(
    run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scarce(Callback):
        """Runs out of memory at the start of the second cycle, once."""

        spent = False

        def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
            if epoch == 2 and not self.spent:
                self.spent = True
                raise torch.OutOfMemoryError("no device is small enough to be asked for real")

    def scarcely(*arguments: Any, callback: Callback, **options: Any) -> Any:
        return train(*arguments, callback=Callbacks([scarce, callback]), **options)

    scarce = Scarce()
    monkeypatch.setattr("budgetnet.engines.running.train", scarcely)
    outcome = run_search(trials=1, recipe=tiny_recipe(epochs=3, schedule=restarts(1)), max_params=None)
    (trial,) = outcome.study.get_trials()
    assert scarce.spent
    assert (trial.state, trial.user_attrs["batch_parts"]) == (TrialState.COMPLETE, 2)
    assert list(trial.intermediate_values) == [1, 2, 3]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_study_is_not_kept_in_memory_alone(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="must name a file"):
        open_storage(url, create=True)
    assert list(tmp_path.iterdir()) == []
