"""Killed searches with several workers: trackers and callbacks receive every event once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from support import TINY_SPACE, finished, started, tiny_recipe, until, wait_for, write_space
from tracker_support import board_points, curves_of, mlflow_points, mlflow_runs
from worker_support import are_gone, workers_of

from budgetnet.data import DataSet
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.study.config import SearchConfig
from budgetnet.study.request import arrange, run
from budgetnet.study.space import SearchSpace
from budgetnet.training.callbacks import Callback, RunInfo
from budgetnet.training.trackers import MLflow

SEARCH = ["search", "--space", "space.yaml", "--recipe", "recipe.yaml", "--max-params", "20k", "--device", "cpu"]
SEARCH += ["--train-size", "300", "--validation-size", "40", "--workers", "2", "--trials", "2", "--pruner", "none"]
SEARCH += ["--track", "tensorboard", "--track", "mlflow"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the workers of a search in /proc"),
]


def test_a_killed_search_continues_its_tracked_runs(tmp_path: Path) -> None:
    write_space(tmp_path / "space.yaml", TINY_SPACE)
    tiny_recipe(epochs=40).save(tmp_path / "recipe.yaml")
    runs, uri = tmp_path / "runs", f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    with started(*SEARCH, cwd=tmp_path) as process:

        def both_in_training() -> list[int]:
            running = [path for path in runs.glob("*/curves.csv") if len(path.read_text().splitlines()) > 5]
            return workers_of(process.pid) if len(running) == 2 else []

        workers = wait_for(both_in_training, process=process)
        process.kill()
        process.wait()
        until(lambda: are_gone(workers))
    broken = {each.data.tags["budgetnet.run"]: each.info for each in mlflow_runs(uri)}
    assert "RUNNING" in {info.status for info in broken.values()}, "the killed process could not log the interruption"
    done = finished(*SEARCH, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.parent.name for path in runs.glob("*/result.json")}
    assert len(names) == 2
    ended = {each.data.tags["budgetnet.run"]: each.info for each in mlflow_runs(uri)}
    assert {info.status for info in ended.values()} == {"FINISHED"}
    assert {name: ended[name].run_id for name in broken} == {name: info.run_id for name, info in broken.items()}
    for logged in (mlflow_points(uri), board_points(runs / "tensorboard")):
        assert set(logged) == names
        for name in names:
            for curve, points in curves_of(runs / name).items():
                assert [step for step, _ in logged[name][curve]] == list(range(1, 41))
                assert [value for _, value in logged[name][curve]] == pytest.approx([value for _, value in points])


class Listener(Callback):
    """Records the events of each worker, and kills one worker after the third epoch of a run."""

    def __init__(self) -> None:
        self.events: dict[int, list[tuple[str, int]]] = defaultdict(list)
        self.trials: dict[int | None, str] = {}
        self.killed = False

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        self.events[worker].append(("start", len(run.curves)))
        self.trials[run.context.trial] = run.run

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        self.events[worker].append(("epoch", epoch.epoch))
        if not self.killed and epoch.epoch == 3:
            self.killed = True
            # Workers are numbered in the order of their start.
            os.kill(workers_of(os.getpid())[worker], signal.SIGKILL)

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        self.events[worker].append(("end", result.epochs))

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:
        self.events[worker].append(("interruption", 0))


def assert_in_order(events: list[tuple[str, int]]) -> None:
    """Assert that runs follow one another: start, consecutive epochs, then end or interruption."""
    last: int | None = None
    for kind, number in events:
        if kind == "start":
            assert last is None
            last = number
            continue
        assert last is not None
        if kind == "epoch":
            assert number == last + 1
            last = number
        else:
            assert kind == "interruption" or number == last
            last = None
    assert last is None


def test_events_of_several_workers_are_in_order_although_one_is_killed(digits: DataSet, tmp_path: Path) -> None:
    listener = Listener()
    request = arrange(
        digits,
        SearchConfig(
            # Many epochs, so that the worker is still training when its events arrive, even on a busy machine.
            recipe=tiny_recipe(epochs=300),
            max_params=20_000,
            space=SearchSpace(**TINY_SPACE),
            trials=3,
            out=tmp_path,
            device="cpu",
            workers=2,
            train_size=300,
            validation_size=40,
            pruner="none",
        ),
    )
    outcome = run(request, listener)
    assert (outcome.trained, listener.killed, set(listener.events)) == (3, True, {0, 1})
    for events in listener.events.values():
        assert_in_order(events)
    kinds = [kind for events in listener.events.values() for kind, _ in events]
    assert (kinds.count("interruption"), kinds.count("end")) == (1, 3)
    trials = {
        trial.number: trial.user_attrs["run"]
        for trial in outcome.study.get_trials()
        if "run" in trial.user_attrs and "repeat_of" not in trial.user_attrs
    }
    assert listener.trials == trials
    assert {RunFolder(tmp_path / name).load().result.epochs for name in trials.values()} == {300}


def test_a_database_whose_creation_was_killed_is_created_again(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    code = f"from budgetnet.training.trackers import MLflow; MLflow('sqlite:///{file}')"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_for(lambda: any(part.stat().st_size for part in tmp_path.glob(".*.part")) or None, process=process)
    process.kill()
    process.wait()
    assert not file.exists(), "killed before it was complete"
    MLflow(f"sqlite:///{file}")
    assert file.exists()
