"""A search by several real processes: what they share, how they end, and what is said when they cannot go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from support import TINY_SPACE, child_environment, finished, started, tiny_recipe, until, wait_for, write_space
from worker_support import are_gone, trials_in, workers_of

from budgetnet.data import load_dataset
from budgetnet.data.test_set import read_openings
from budgetnet.data.training_data import TrainingData
from budgetnet.runs.store import RunFolder

SEARCH = ["search", "--space", "space.yaml", "--recipe", "recipe.yaml", "--max-params", "20k", "--device", "cpu"]
SEARCH += ["--train-size", "200", "--validation-size", "40", "--workers", "2"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for a search's workers in /proc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_space(tmp_path / "space.yaml", TINY_SPACE)
    tiny_recipe(epochs=4).save(tmp_path / "recipe.yaml")
    return tmp_path


def both_in_training(folder: Path, pid: int) -> list[int]:
    """Return the workers of a search as soon as both have ended an epoch."""
    return workers_of(pid) if len(list((folder / "runs").glob("*/checkpoint.safetensors"))) == 2 else []


def epochs_trained(folder: Path) -> list[int]:
    return [len(path.read_text().splitlines()) for path in sorted((folder / "runs").glob("*/curves.csv"))]


def test_two_workers_train_as_many_as_wanted_and_finish_the_finals(folder: Path) -> None:
    finals = ["--finalists", "1", "--final-seeds", "2", "--final-recipe", "recipe.yaml", "--final-epochs", "2"]
    done = finished(*SEARCH, "--trials", "6", *finals, "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["trained"] == 6
    trained = [trial for trial in trials_in(folder) if trial.user_attrs.get("trained")]
    assert len({trial.user_attrs["candidate"] for trial in trained}) == 6
    for trial in trained:
        record = RunFolder(folder / "runs" / trial.user_attrs["run"]).load()
        (start,) = json.loads((record.folder / "environment.json").read_text())["starts"]
        assert start["threads"] == max(1, len(os.sched_getaffinity(0)) // 2), "each its share of the cores"
    (final,) = answer["finals"]
    assert len(final["test"]) == len(final["validation"]) == 2
    assert len(read_openings(folder / "runs" / "test-openings.jsonl")) == 1
    assert not list((folder / "runs").glob(".data-*")), "what was shared is gone"
    again = finished(*SEARCH, "--trials", "6", *finals, "--json", cwd=folder)
    assert (again.returncode, json.loads(again.stdout)) == (0, answer)
    assert len(read_openings(folder / "runs" / "test-openings.jsonl")) == 1


@pytest.mark.slow
def test_what_libraries_print_is_no_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Printed by torch's kernels themselves, past Python.
    monkeypatch.setenv("ONEDNN_VERBOSE", "1")
    done = finished(*SEARCH, "--trials", "2", cwd=folder)
    assert done.returncode == 0
    assert "onednn_verbose" in done.stderr
    assert "2 trained" in done.stdout


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_all_workers_end_within_their_step(folder: Path, sent: signal.Signals, code: int) -> None:
    tiny_recipe(epochs=2000).save(folder / "recipe.yaml")
    with started(*SEARCH, "--trials", "6", cwd=folder) as process:
        workers = wait_for(partial(both_in_training, folder, process.pid), process=process)
        if sent == signal.SIGTERM:
            # As a scheduler sends it, to all processes of the job: the search has time to stop its workers itself.
            for worker in workers:
                os.kill(worker, sent)
            before = epochs_trained(folder)
            wait_for(lambda: all(map(int.__gt__, epochs_trained(folder), before)), process=process)
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err == "interrupted: progress is saved, run the same command to resume\n"
    assert are_gone(workers)
    assert [trial.user_attrs["ended"] for trial in trials_in(folder)] == ["interrupted", "interrupted"]
    assert not [trial.number for trial in trials_in(folder) if "deaths" in trial.user_attrs]


@pytest.mark.slow
def test_a_worker_that_is_terminated_alone_is_replaced(folder: Path) -> None:
    tiny_recipe(epochs=2000).save(folder / "recipe.yaml")
    with started(*SEARCH, "--trials", "6", cwd=folder) as process:
        first, _ = wait_for(partial(both_in_training, folder, process.pid), process=process)
        os.kill(first, signal.SIGTERM)
        wait_for(lambda: len(set(workers_of(process.pid)) - {first}) == 2, process=process)
        wait_for(lambda: [trial for trial in trials_in(folder) if "deaths" in trial.user_attrs], process=process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "was killed by signal SIGTERM while it trained" in err


def test_workers_end_with_the_search_that_started_them(folder: Path) -> None:
    tiny_recipe(epochs=2000).save(folder / "recipe.yaml")
    with started(*SEARCH, "--trials", "6", cwd=folder) as process:
        workers = wait_for(lambda: workers_of(process.pid), process=process)
        process.kill()
        process.wait()
        until(lambda: are_gone(workers))


def test_workers_in_training_end_with_the_search_that_started_them(folder: Path) -> None:
    tiny_recipe(epochs=2000).save(folder / "recipe.yaml")
    with started(*SEARCH, "--trials", "6", cwd=folder) as process:
        workers = wait_for(partial(both_in_training, folder, process.pid), process=process)
        process.kill()
        process.wait()
        until(lambda: are_gone(workers))


@pytest.mark.slow
def test_a_worker_that_outlives_its_search_is_waited_for_by_the_next_one(folder: Path) -> None:
    tiny_recipe(epochs=40).save(folder / "recipe.yaml")
    command = [*SEARCH, "--trials", "4", "--json"]
    with started(*command, cwd=folder) as process:
        stopped, other = wait_for(partial(both_in_training, folder, process.pid), process=process)
        os.kill(stopped, signal.SIGSTOP)
        process.kill()
        process.wait()
        until(lambda: are_gone([other]))
        try:
            with started(*command, cwd=folder) as again:
                # Everything else is done.
                wait_for(lambda: len(list((folder / "runs").glob("*/result.json"))) == 3, process=again)
                assert not are_gone([stopped])
                os.kill(stopped, signal.SIGCONT)
                until(lambda: are_gone([stopped]))
                out, err = again.communicate(timeout=240)
        finally:
            with suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGKILL)
    assert (again.returncode, err) == (0, "")
    assert json.loads(out)["trained"] == 4
    ends = [trial.user_attrs["ended"] for trial in trials_in(folder) if not trial.user_attrs.get("trained")]
    # What is proposed depends on which candidates have ended, and may be one of them again.
    assert [end for end in ends if end != "duplicate"] == ["interrupted", "interrupted"]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again(folder: Path) -> None:
    tiny_recipe(epochs=40).save(folder / "recipe.yaml")
    with started(*SEARCH, "--trials", "4", "--json", cwd=folder) as process:
        workers = wait_for(
            lambda: workers_of(process.pid) if list((folder / "runs").glob("*/checkpoint.safetensors")) else [],
            process=process,
        )
        os.kill(workers[0], signal.SIGKILL)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0
    # The worker may have been between two candidates.
    assert err.count("\n") == err.count("was killed by signal SIGKILL while it ") == 1
    assert json.loads(out)["trained"] == 4
    trials = trials_in(folder)
    assert sum(bool(trial.user_attrs.get("trained")) for trial in trials) == 4


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_disk_that_takes_no_more_is_told_in_one_line_and_what_was_there_stays(folder: Path, workers: str) -> None:
    done = finished(*SEARCH, "--trials", "2", "--workers", workers, "--json", cwd=folder)
    assert done.returncode == 0
    before = {path: path.read_bytes() for path in (folder / "runs").glob("*/result.json")}
    # The system refuses files of more than 60 blocks, as a disk does that is full: no checkpoint fits any more.
    space = {**TINY_SPACE, "channels": [32, 32], "stages": [1, 1], "blocks": [1, 2]}
    write_space(folder / "wide.yaml", space)
    command = [sys.executable, "-m", "budgetnet", *SEARCH, "--trials", "3", "--workers", workers]
    command += ["--space", "wide.yaml", "--sizing", "reject", "--max-params", "1M", "--study", "wide"]
    limited = ["bash", "-c", 'ulimit -f 60; exec "$@"', "bash", *command]
    full = subprocess.run(
        limited, cwd=folder, capture_output=True, text=True, check=False, env=child_environment(), timeout=240
    )
    assert full.returncode in (1, 2)
    assert (full.stdout, full.stderr.count("\n")) == ("", 1), full.stderr
    assert full.stderr.startswith("error: ")
    assert {path: path.read_bytes() for path in before} == before
    again = finished(*command[3:], "--json", cwd=folder)
    assert (again.returncode, json.loads(again.stdout)["trained"]) == (0, 3)


def test_images_are_shared_as_they_are(tmp_path: Path) -> None:
    import torch

    digits, recipe = load_dataset("digits"), tiny_recipe()
    data = TrainingData.prepare(digits, recipe, device=torch.device("cpu"))
    data.share(tmp_path / "shared")
    opened = TrainingData.open_shared(tmp_path / "shared", device=torch.device("cpu"))
    assert (opened.record, opened.input_shape, opened.num_classes) == (data.record, data.input_shape, data.num_classes)
    for mine, theirs in ((data.train, opened.train), (data.validation, opened.validation)):
        for field in ("images", "labels", "mean", "std"):
            assert torch.equal(getattr(mine, field), getattr(theirs, field))
    lines = Path("/proc/self/maps").read_text().splitlines()
    shared = [line for line in lines if str(tmp_path / "shared" / "train-images.npy") in line]
    assert shared, "they are the file's own pages, not a copy of them"
