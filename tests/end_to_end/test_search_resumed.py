"""A search that is killed, interrupted and asked again, in real processes on one SQLite file."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from search_support import StoredTrial, read_trials
from support import TINY_SPACE, RunCommand, started, tiny_recipe, wait_for, write_space

from budgetnet.runs.store import RunFolder


def in_training(folder: Path, *, besides: set[str]) -> Callable[[], str | None]:
    """Gives the run folder of a running trial that has a checkpoint and is none of the others."""

    def find() -> str | None:
        for trial in read_trials(folder):
            if trial["state"] == "RUNNING" and trial.get("run") not in (*besides, None):
                run = str(trial["run"])
                return run if (folder / "runs" / run / "checkpoint.safetensors").exists() else None
        return None

    return find


def completed(trials: list[StoredTrial]) -> list[StoredTrial]:
    return [trial for trial in trials if trial["state"] == "COMPLETE" and trial.get("trained")]


def test_a_search_killed_and_interrupted_is_taken_up_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: RunCommand
) -> None:
    write_space(tmp_path / "space.yaml", TINY_SPACE)
    tiny_recipe(epochs=12).save(tmp_path / "recipe.yaml")
    options = ["search", "--space", "space.yaml", "--recipe", "recipe.yaml", "--max-params", "20k", "--device", "cpu"]
    options += ["--train-size", "500", "--validation-size", "40"]
    monkeypatch.chdir(tmp_path)

    with started(*options, "--trials", "4", cwd=tmp_path) as process:
        first = wait_for(in_training(tmp_path, besides=set()), process=process)
        meanwhile = tell(*options, "--trials", "4")
        assert (meanwhile.code, meanwhile.out) == (2, "")
        assert meanwhile.err.count("\n") == 1
        assert "another search is running on this study" in meanwhile.err
        killed_run = wait_for(in_training(tmp_path, besides={first}), process=process)
        process.kill()
        process.wait()
    after_kill = read_trials(tmp_path)
    assert [trial["run"] for trial in completed(after_kill)][:1] == [first]
    (left,) = [trial for trial in after_kill if trial["state"] == "RUNNING"]
    killed_run = left["run"]
    assert not RunFolder(tmp_path / "runs" / killed_run).finished

    def retried() -> bool:
        retries = [trial for trial in read_trials(tmp_path) if trial.get("retry_of") == left["number"]]
        return bool(retries) and len(curves(killed_run)) > progress

    def curves(run: str) -> list[str]:
        path = tmp_path / "runs" / run / "curves.csv"
        return path.read_text().splitlines() if path.exists() else []

    progress = len(curves(killed_run))
    with started(*options, "--trials", "4", cwd=tmp_path) as process:
        wait_for(retried, process=process)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 130
    assert "progress is saved, run the same command to resume" in complaint
    assert "Traceback" not in complaint
    after_interrupt = read_trials(tmp_path)
    assert not [trial for trial in after_interrupt if trial["state"] == "RUNNING"]
    assert after_interrupt[left["number"]]["ended"] == "interrupted"

    answer = tell(*options, "--trials", "4", "--json")
    assert (answer.code, answer.err) == (0, "")
    trials = read_trials(tmp_path)
    assert trials[: len(after_interrupt)] == after_interrupt, "what has ended stays as it is"
    assert len(completed(trials)) == json.loads(answer.out)["trained"] == 4
    runs = [trial["run"] for trial in completed(trials)]
    assert len(set(runs)) == 4
    assert killed_run in runs
    assert {path.parent.name for path in (tmp_path / "runs").glob("*/run.json")} == set(runs)
    assert all(RunFolder(tmp_path / "runs" / run).load().result.epochs == 12 for run in runs)
    for trial in trials:
        if "retry_of" in trial:
            assert trial["run"] == trials[trial["retry_of"]]["run"]
