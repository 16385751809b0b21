"""A search that is killed: at every kind of step, and, by two workers, at twenty random instants."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from process_support import AVAILABLE, ForkedProcess, python_code
from search_support import StoredTrial, read_trials
from support import TINY_SPACE, child_environment, finished, start, tiny_recipe, until, wait_for, write_space
from worker_support import are_gone, workers_of

from budgetnet.common.errors import InputError
from budgetnet.runs.store import RunFolder
from budgetnet.training.checkpoint import load_tensors

TRIALS, KILLS = 24, 20
OPTIONS = ["search", "--space", "space.yaml", "--recipe", "recipe.yaml", "--max-params", "20k", "--device", "cpu"]
OPTIONS += ["--train-size", "500", "--validation-size", "40", "--workers", "2", "--trials", str(TRIALS)]

ENDED = ("COMPLETE", "PRUNED")


def trained(trials: list[StoredTrial]) -> list[StoredTrial]:
    return [trial for trial in trials if trial["state"] in ENDED and trial.get("trained")]


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Witness:
    """Keeps what stood at each kill, to be compared with what stands later."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs = folder, folder / "runs"
        self.ended: dict[int, StoredTrial] = {}
        self._files: dict[Path, tuple[int, bytes]] = {}
        self._epochs: dict[str, list[Any]] = {}
        self.resumable = 0

    def look(self, *, alone: bool) -> None:
        """Reads storage and run folders after a kill; ``alone``, when nobody is left to write to them meanwhile."""
        trials = read_trials(self._folder)
        by_number = {trial["number"]: trial for trial in trials}
        for number, trial in self.ended.items():
            assert by_number[number] == trial, "a candidate that had ended is as it was"
        for trial in trained(trials):
            self.ended[trial["number"]] = trial
            for file in ("result.json", "best.safetensors", "curves.csv", "run.json"):
                path = self._runs / trial["run"] / file
                now = path.stat().st_mtime_ns, path.read_bytes()
                assert self._files.setdefault(path, now) == now, "what was trained is not trained again"
        for checkpoint in self._runs.glob("*/checkpoint.safetensors"):
            try:
                progress = load_tensors(checkpoint)[1]["progress"]
            except InputError:
                assert not alone, "every checkpoint can be read"
                assert not checkpoint.exists(), "it can go in between only with the end of its run"
                continue
            curves = RunFolder(checkpoint.parent).read_curves()
            assert progress["epoch"] <= len(curves)
            # An epoch's row is written just before its checkpoint.
            assert not alone or len(curves) <= progress["epoch"] + 1
            self._epochs[checkpoint.parent.name] = list(curves[: progress["epoch"]])
            self.resumable += 1

    def check_epochs(self) -> None:
        """That no epoch behind a checkpoint was trained again: its wall time is what it was."""
        assert self._epochs
        for run, epochs in self._epochs.items():
            assert list(RunFolder(self._runs / run).load().curves[: len(epochs)]) == epochs


class Unfinished:
    """Counts the kills of workers at which a run's epochs were the same, by run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "runs"
        self._kills: dict[str, tuple[int, int]] = {}

    def _rows(self) -> dict[str, int]:
        runs = [path.parent for path in self._folder.glob("*/run.json")]
        return {run.name: len(RunFolder(run).read_curves()) for run in runs if not (run / "result.json").exists()}

    def can_be_killed(self) -> bool:
        """Return whether no run would lose its third worker in an epoch, for which its candidate is failed.

        An epoch's row can be written without that the search heard of it.
        """
        known = [(rows, *self._kills.get(run, (0, 0))) for run, rows in self._rows().items()]
        return all(rows >= before + 2 or kills < 2 for rows, before, kills in known)

    def killed(self) -> None:
        """Take note that a worker was killed; which run it was training is not known."""
        for run, rows in self._rows().items():
            before, kills = self._kills.get(run, (0, 0))
            self._kills[run] = (rows, 1) if not kills or rows >= before + 2 else (before, kills + 1)


def check_study(folder: Path, *, wanted: int, epochs: int) -> None:
    """Check that this number of candidates was trained, each once, and that every killed one was resumed."""
    trials = read_trials(folder)
    done = trained(trials)
    assert len(done) == wanted
    assert {trial["state"] for trial in trials} <= {*ENDED, "FAIL"}
    assert len({trial["candidate"] for trial in done}) == len({trial["run"] for trial in done}) == wanted
    runs = {path.parent.name for path in (folder / "runs").glob("*/run.json")}
    assert runs == {trial["run"] for trial in done}
    for trial in done:
        record = RunFolder(folder / "runs" / trial["run"]).load()
        assert (record.result.epochs, record.result.validation_accuracy) == (epochs, trial["value"])
        assert load_tensors(RunFolder(record.folder).best)[0]
    for trial in trials:
        if trial["state"] == "FAIL":
            assert trial["ended"] == "interrupted", trial
            assert [other["run"] for other in trials if other.get("retry_of") == trial["number"]] == [trial["run"]]


KILLED = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from budgetnet.cli.main import main

since, step, left, *arguments = sys.argv[1:]
left = int(left)

def reach(name):
    global since, left
    if not since and name == step:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    if name == since:
        since = ""

def replace(source, target, *, replace=os.replace):
    replace(source, target)
    reach(os.path.basename(target))

os.replace = replace
event.listen(Engine, "begin", lambda connection: reach("begin"))
event.listen(Engine, "commit", lambda connection: reach("commit"))
sys.exit(main(arguments))
"""
"""A search that kills itself: once a file of the first name was written, when it comes to a step for so many times.

A step is a file that was written, by its name; a transaction that begins; or one that is about to be committed.
"""
STEPS = [
    # While the study is made, then in the first candidate's run.
    *(("", "commit", count) for count in (1, 5, 9, 13)),
    *(("", file, 1) for file in ("run.json", "curves.csv", "checkpoint.safetensors", "best.safetensors")),
    ("", "checkpoint.safetensors", 2),
    ("", "result.json", 1),
    # Of the second: before its end is stored, and after that.
    ("result.json", "commit", 1),
    ("result.json", "begin", 2),
    # While the third is stored before any training, and when it is.
    ("result.json", "commit", 2),
    ("result.json", "begin", 3),
    ("result.json", "spec.yaml", 1),
]


@pytest.mark.skipif(not AVAILABLE, reason="this system forks no processes from a server")
def test_a_search_killed_at_any_step_loses_nothing_and_trains_nothing_twice(tmp_path: Path) -> None:
    write_space(tmp_path / "space.yaml", TINY_SPACE)
    tiny_recipe(epochs=4).save(tmp_path / "recipe.yaml")
    options = [*OPTIONS, "--train-size", "64", "--workers", "1", "--trials", "12"]
    witness = Witness(tmp_path)
    for since, step, count in STEPS:
        arguments = [KILLED, since, step, str(count), *options]
        with ForkedProcess(arguments, cwd=tmp_path, environment=child_environment(), function=python_code) as process:
            said = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, (since, step, count, said)
        witness.look(alone=True)
    final = finished(*options, "--json", cwd=tmp_path)
    assert (final.returncode, final.stderr, json.loads(final.stdout)["trained"]) == (0, "", 12)
    witness.look(alone=True)
    witness.check_epochs()
    check_study(tmp_path, wanted=12, epochs=4)


@pytest.mark.skipif(not AVAILABLE, reason="this system forks no processes from a server")
def test_a_killed_search_with_several_objectives_has_all_values_of_a_trial_or_none(tmp_path: Path) -> None:
    write_space(tmp_path / "space.yaml", TINY_SPACE)
    tiny_recipe(epochs=2).save(tmp_path / "recipe.yaml")
    options = [*OPTIONS, "--train-size", "64", "--workers", "1", "--trials", "4", "--objectives", "accuracy,macs"]
    steps = [("", "commit", 5), ("", "checkpoint.safetensors", 1), ("result.json", "commit", 1)]
    for since, step, count in steps:
        arguments = [KILLED, since, step, str(count), *options]
        with ForkedProcess(arguments, cwd=tmp_path, environment=child_environment(), function=python_code) as process:
            said = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, (since, step, count, said)
    final = finished(*options, "--json", cwd=tmp_path)
    assert (final.returncode, final.stderr, json.loads(final.stdout)["trained"]) == (0, "", 4)
    url = f"sqlite:///{tmp_path / 'runs' / 'studies.db'}"
    study = optuna.load_study(study_name=None, storage=url)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for trial in study.get_trials():
        if trial.state.name == "COMPLETE":
            record = RunFolder(tmp_path / "runs" / trial.user_attrs["run"]).load()
            assert trial.values == [record.result.validation_accuracy, record.result.macs]
        else:
            assert trial.values is None


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds a search's workers in /proc")
def test_a_search_killed_at_random_instants_loses_nothing_and_trains_nothing_twice(tmp_path: Path) -> None:
    write_space(tmp_path / "space.yaml", TINY_SPACE)
    tiny_recipe(epochs=60).save(tmp_path / "recipe.yaml")
    chance, witness, unfinished = random.Random(20), Witness(tmp_path), Unfinished(tmp_path)
    killed = {"all": 0, "parent": 0, "worker": 0}
    process: Any = None
    while sum(killed.values()) < KILLS:
        if process is None or process.poll() is not None:
            assert process is None or process.returncode != 0, "the search was over before it was killed often enough"
            process = start(*OPTIONS, cwd=tmp_path)
        victim = chance.choice(list(killed))
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0, 8))  # An instant like any other: while everything starts, for instance.
        else:
            before = {trial["number"] for trial in read_trials(tmp_path)}

            def in_training(before: set[int] = before) -> bool:
                return any(
                    trial["state"] == "RUNNING" for trial in read_trials(tmp_path) if trial["number"] not in before
                )

            wait_for(in_training, process=process)
            time.sleep(chance.uniform(0, 1.5))
        if victim == "worker":
            wait_for(unfinished.can_be_killed, process=process)
        workers = workers_of(process.pid)
        if victim == "worker" and workers:
            unfinished.killed()
            kill([chance.choice(workers)])
        else:
            victim = "all" if victim == "worker" else victim
            kill([process.pid, *workers] if victim == "all" else [process.pid])
            process.communicate()
            until(partial(are_gone, workers))
        killed[victim] += 1
        witness.look(alone=victim != "worker")
    assert min(killed.values()) >= 3, killed
    if process.poll() is None:
        kill([process.pid])
        process.communicate()
    final = start(*OPTIONS, "--json", cwd=tmp_path)
    out, err = final.communicate(timeout=600)
    assert (final.returncode, err) == (0, "")
    witness.look(alone=True)
    witness.check_epochs()
    assert witness.resumable >= 5, "the case needs candidates that were killed in training"
    assert json.loads(out)["trained"] == TRIALS
    check_study(tmp_path, wanted=TRIALS, epochs=60)
