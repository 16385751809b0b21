"""Worker processes: killed, interrupted, unable to start, and their results against those of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import dying_worker
import pytest
import torch
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState
from search_support import SearchRunner, Watcher, reached
from support import PAIR_SPACE, TINY, restarts, tiny_recipe
from worker_support import workers_of

from budgetnet.common.errors import BudgetnetError
from budgetnet.data import DataSet
from budgetnet.engines import worker as worker_program
from budgetnet.engines.batch import Batch
from budgetnet.engines.choice import EngineChoice
from budgetnet.engines.jobs import PlannedRun
from budgetnet.runs.records import Epoch
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import RunInfo

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the workers in /proc")

LONG = tiny_recipe(epochs=100)
"""Recipe of runs that still train when their first events arrive, even on a busy machine."""
ENDLESS = tiny_recipe(epochs=5000)
"""Recipe of runs that are interrupted."""


@pytest.fixture
def run_search(digits: DataSet, tmp_path: Path) -> SearchRunner:
    return SearchRunner(digits, tmp_path)


def begun(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if "run" in trial.user_attrs and "repeat_of" not in trial.user_attrs]


class Killer(Watcher):
    """Kills the worker of the first run when it has trained an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.victims: list[str] = []
        self._runs: dict[int, str] = {}

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        super().on_run_start(run, worker=worker)
        self._runs[worker] = run.run

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        super().on_epoch_end(epoch, worker=worker)
        run = self._runs[worker]
        if not self.victims:
            self.victims.append(run)
            for pid in workers_of(os.getpid()):
                if _trains(pid, run):
                    os.kill(pid, signal.SIGKILL)
                    return
            raise AssertionError("the worker is gone")


def _trains(pid: int, run: str) -> bool:
    """Return whether a process holds the lock of a run."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if run in str(descriptor.readlink()):
                return True
    return False


def test_two_workers_give_the_candidates_of_one_process(digits: DataSet, tmp_path: Path) -> None:
    options: dict[str, Any] = {"ways": {"sampler": "random"}, "recipe": tiny_recipe(epochs=2, schedule=restarts(1))}
    alone, together = SearchRunner(digits, tmp_path / "alone"), SearchRunner(digits, tmp_path / "together")
    outcomes = [alone(trials=5, **options), together(trials=5, workers=2, **options)]
    assert [(outcome.trained, outcome.end) for outcome in outcomes] == [(5, "done")] * 2
    stored = [
        {
            trial.user_attrs["candidate"]: (trial.params, trial.values, trial.intermediate_values, trial.state)
            for trial in begun(outcome.study.get_trials())
        }
        for outcome in outcomes
    ]
    assert stored[0] == stored[1]
    assert reached(alone.out) == reached(together.out)
    assert len(reached(alone.out)) == 5
    assert not list(together.out.glob(".data-*"))


def test_candidate_whose_worker_is_killed_is_resumed_and_ends_once(
    run_search: SearchRunner, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Killer()
    outcome = run_search(trials=2, recipe=LONG, workers=2, watcher=watcher)
    trials = begun(outcome.study.get_trials())
    assert (outcome.trained, len(trials), len(watcher.victims)) == (2, 3, 1)
    (lost,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    (retry,) = [trial for trial in trials if "retry_of" in trial.user_attrs]
    assert (lost.user_attrs["ended"], lost.user_attrs["deaths"]) == ("interrupted", 1)
    assert lost.user_attrs["run"] == retry.user_attrs["run"] == watcher.victims[0]
    assert (retry.user_attrs["retry_of"], retry.params) == (lost.number, lost.params)
    assert [result.epochs for result in watcher.results] == [100, 100]
    assert watcher.broken == [None]
    (line,) = caplog.messages
    label = next(network.label for network in watcher.networks if network.run == watcher.victims[0])
    told = f"was killed by signal SIGKILL while it trained #{lost.number} {label}"
    told += "; the candidate is resumed (1 of at most 3 deaths in one epoch)"
    assert line in {f"worker 0 {told}", f"worker 1 {told}"}


@pytest.mark.slow
def test_candidate_whose_worker_is_killed_keeps_its_operations(digits: DataSet, tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": LONG, "ways": {"sampler": "random"}}
    whole = SearchRunner(digits, tmp_path / "whole")(trials=2, **options).study.get_trials()
    costs = [trial.user_attrs["train_flops"] for trial in whole if trial.user_attrs.get("trained")]
    # The second candidate cannot begin, even while the first one has no worker.
    options["ways"]["max_train_flops"] = (sum(costs) - 1) / 1e15
    watcher = Killer()
    outcome = SearchRunner(digits, tmp_path / "limited")(trials=2, workers=2, watcher=watcher, **options)
    assert (outcome.end, outcome.trained, len(watcher.victims)) == ("train flops", 1, 1)
    assert (outcome.train_flops, outcome.refused) == tuple(costs)
    lost, retry = begun(outcome.study.get_trials())
    assert (lost.state, retry.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert [result.epochs for result in watcher.results] == [100]


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Workers die in the first epoch of one run, whose name is in this file."""
    monkeypatch.setattr(worker_program, "__name__", dying_worker.__name__)
    monkeypatch.setenv(dying_worker.VICTIM, str(tmp_path / "victim"))
    return tmp_path / "victim"


@pytest.mark.slow
def test_candidate_that_kills_its_worker_three_times_in_an_epoch_is_failed(
    run_search: SearchRunner, victim: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = run_search(trials=2, workers=2)
    trials = begun(outcome.study.get_trials())
    assert (outcome.trained, outcome.end) == (2, "done")
    killed = [trial for trial in trials if trial.user_attrs["run"] == victim.read_text()]
    assert [trial.state for trial in killed] == [TrialState.FAIL] * 3
    reason = "its worker process died 3 times in the same epoch; the last time it was killed by signal SIGKILL"
    assert [trial.user_attrs["ended"] for trial in killed] == ["interrupted", "interrupted", reason]
    assert [line.partition("; ")[2] for line in caplog.messages] == [
        "the candidate is resumed (1 of at most 3 deaths in one epoch)",
        "the candidate is resumed (2 of at most 3 deaths in one epoch)",
        "the last time it was killed by signal SIGKILL",
    ]
    assert len(trials) == 3 + 2


def test_workers_that_cannot_start_end_the_search(
    run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_program, "__name__", "budgetnet.no_such_module")
    rule = "3 times in a row before it was ready; the last time it ended with exit code 1: repeat the command to resume"
    with pytest.raises(BudgetnetError, match=rf"^worker \d died {rule}$"):
        run_search(trials=1, workers=2)
    told = "ended with exit code 1 before it was ready; it is started again"
    assert set(caplog.messages) == {f"worker 0 {told}", f"worker 1 {told}"}
    assert not list(run_search.out.glob(".data-*"))


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt,
        pytest.param(SystemExit, marks=pytest.mark.slow),
        pytest.param(ValueError, marks=pytest.mark.slow),
    ],
)
def test_exception_of_a_callback_interrupts_all_workers(run_search: SearchRunner, error: type[BaseException]) -> None:
    class Raiser(Watcher):
        """Raises when both workers have finished an epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.seen: set[int] = set()

        def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
            super().on_epoch_end(epoch, worker=worker)
            self.seen.add(worker)
            if self.seen == {0, 1}:
                raise error

    watcher = Raiser()
    with pytest.raises(error):
        run_search(trials=2, recipe=ENDLESS, workers=2, watcher=watcher)
    assert watcher.broken == [None, None]
    assert not workers_of(os.getpid())
    assert not list(run_search.out.glob(".data-*"))
    before = {path.parent.name: RunFolder(path.parent).read_curves() for path in run_search.out.glob("*/curves.csv")}
    again = Watcher(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        run_search(trials=2, recipe=ENDLESS, watcher=again)
    (resumed,) = again.networks
    assert len(before) == 2
    assert 0 < len(resumed.curves) <= len(before[resumed.run])
    assert list(resumed.curves) == list(before[resumed.run][: len(resumed.curves)])


def test_deadline_interrupts_all_workers(run_search: SearchRunner) -> None:
    class Clock(Watcher):
        """Lets the time run out when both workers train."""

        def on_run_start(self, run: RunInfo, *, worker: int) -> None:
            super().on_run_start(run, worker=worker)
            if len(self.networks) == 2:
                patch.setattr("budgetnet.study.driver.time.time", lambda: 100.0)

    watcher = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("budgetnet.study.driver.time.time", lambda: 0.0)
        outcome = run_search(trials=9, recipe=ENDLESS, workers=2, watcher=watcher, deadline=50.0)
    assert (outcome.end, outcome.trained) == ("time", 0)
    assert watcher.broken == [None, None]
    assert [trial.user_attrs["ended"] for trial in begun(outcome.study.get_trials())] == ["interrupted"] * 2


SETUP = {"data": "nowhere", "out": "nowhere", "device": "cpu", "threads": 1, "threads_requested": False}


def test_a_worker_that_is_stopped_before_it_has_begun_says_nothing() -> None:
    command = [sys.executable, "-P", "-m", worker_program.__name__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None and worker.stdout is not None and worker.stderr is not None
        # In one write: the worker finds the stop in the pipe as soon as it looks. The pipe stays open.
        worker.stdin.write("".join(f"{json.dumps(message)}\n" for message in (SETUP, worker_program.STOP)))
        worker.stdin.flush()
        said = worker.stdout.read(), worker.stderr.read()
        assert (worker.wait(), *said) == (130, "", "")


@pytest.mark.parametrize("received", ["", '{"data": ', json.dumps(SETUP) + '\n["sto'])
def test_a_worker_whose_engine_ends_in_the_middle_of_a_message_exits_silently(received: str) -> None:
    command = [sys.executable, "-P", "-m", worker_program.__name__]
    ended = subprocess.run(command, check=False, input=received, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")


@pytest.mark.slow
def test_batch_with_two_workers_gives_the_records_of_one_process(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(schedule=restarts(1))
    runs = [PlannedRun(spec=TINY, recipe=recipe, seed=seed) for seed in range(3)]
    runs.append(PlannedRun(spec=TINY, recipe=recipe.model_copy(update={"split_seed": 1}), seed=0))
    for name, workers in (("alone", 1), ("together", 2)):
        choice = EngineChoice("local", workers)
        sizes = {"train_size": 64, "validation_size": 40}
        batch = Batch(digits, device=torch.device("cpu"), out=tmp_path / name, engine=choice, **sizes)
        records = batch.train(runs, Watcher())
        assert [record.identity.seed for record in records] == [0, 1, 2, 0]
    assert reached(tmp_path / "alone") == reached(tmp_path / "together")
    assert len(reached(tmp_path / "alone")) == 4


@pytest.mark.slow
def test_run_that_kills_its_worker_three_times_in_an_epoch_ends_the_batch(
    digits: DataSet, tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = EngineChoice("local", 2)
    sizes = {"train_size": 64, "validation_size": 40}
    batch = Batch(digits, device=torch.device("cpu"), out=tmp_path, engine=choice, **sizes)
    planned = [PlannedRun(spec=TINY, recipe=tiny_recipe(), seed=0)]
    with pytest.raises(BudgetnetError, match="seed 0: its worker process died 3 times in the same epoch"):
        batch.train(planned, Watcher())
    assert not list(tmp_path.glob(".data-*"))
    monkeypatch.delenv(dying_worker.VICTIM)
    (record,) = batch.train(planned, Watcher())
    assert record.folder.name == victim.read_text()


def test_folders_of_images_that_killed_commands_left_are_removed(run_search: SearchRunner) -> None:
    for name in ("abandoned", "used", "new"):
        (run_search.out / f".data-{name}").mkdir(parents=True)
        (run_search.out / f".data-{name}" / "train-images.npy").write_bytes(b"images")
    for name in ("abandoned", "used"):
        (run_search.out / f".data-{name}" / ".lock").touch()
    with FileLock(run_search.out / ".data-used" / ".lock"):
        run_search(trials=1, space=PAIR_SPACE, workers=2)
    assert {path.name for path in run_search.out.glob(".data-*")} == {".data-used", ".data-new"}


def test_nothing_starts_for_a_study_that_is_complete(run_search: SearchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    run_search(trials=1)
    monkeypatch.setattr("subprocess.Popen", None)
    assert run_search(trials=1, workers=2).trained == 1
