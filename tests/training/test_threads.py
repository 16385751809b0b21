"""Number of threads: as requested, as measured, and as in the first epochs of a resumed run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import TINY, EachEpoch, RunCommand, prepare, tiny_recipe

from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.runs.records import Epoch
from budgetnet.runs.store import RunFolder
from budgetnet.training.threads import (
    FirstRun,
    ThreadTimes,
    are_threads_requested,
    measure_threads,
    set_threads,
    training_step_of,
)
from budgetnet.training.trainer import train

two_cores = pytest.mark.skipif(available_cores() < 2, reason="needs two cores")


def no_run() -> FirstRun | None:
    return None


@pytest.mark.parametrize(("milliseconds", "fastest"), [({1: 5, 2: 20}, 1), ({1: 20, 2: 5}, 2)])
def test_the_number_of_threads_with_the_shorter_step_is_the_fastest(milliseconds: dict[int, int], fastest: int) -> None:
    steps: list[int] = []

    def step() -> None:
        threads = torch.get_num_threads()
        steps.append(threads)
        time.sleep(milliseconds[threads] / 1000)

    found = measure_threads(step, most=2)
    assert steps == [1, 2] * 4, "alternately, after one warm-up step of each"
    assert torch.get_num_threads() == 1, "restored"
    assert found.fastest == fastest
    for threads, seconds in found.seconds.items():
        assert seconds == pytest.approx(milliseconds[threads] / 1000, abs=0.004)


def test_measured_times_are_reported_in_one_line() -> None:
    line = "threads: 1, the fastest for this network: a step takes 58.0 ms with 1, 3,420.7 ms with 2"
    assert str(ThreadTimes({1: 0.058, 2: 3.4207})) == line


@two_cores
def test_a_requested_number_is_set() -> None:
    torch.set_num_threads(2)
    assert set_threads(1, no_run) == "threads: 1, as requested"
    assert torch.get_num_threads() == 1


@two_cores
def test_a_number_holds_until_the_next_call() -> None:
    torch.set_num_threads(2)
    for wanted in (1, 2, 1):
        assert set_threads(wanted, no_run) == f"threads: {wanted}, as requested"
        assert (torch.get_num_threads(), are_threads_requested()) == (wanted, True)
    assert set_threads(None, no_run) == ""
    assert (torch.get_num_threads(), are_threads_requested()) == (2, False)
    # What others set afterwards is theirs.
    set_threads(2, no_run)
    torch.set_num_threads(1)
    assert not are_threads_requested()
    set_threads(None, no_run)
    assert torch.get_num_threads() == 1


def test_more_threads_than_available_are_rejected() -> None:
    with pytest.raises(InputError, match="threads = 2: must be at most 1: "):
        set_threads(2, no_run)
    torch.set_num_threads(2)
    with pytest.raises(InputError, match=r"must be at most 1: .* shared by 64 processes"):
        set_threads(2, no_run, processes=64)


def test_measured_steps_use_the_network_and_keep_the_random_state(digits: DataSet) -> None:
    recipe = tiny_recipe()
    data = prepare(digits, recipe)
    spec = data.adapt(TINY).replace(head={"dropout": 0.5})
    before = torch.get_rng_state()
    step = training_step_of(FirstRun(spec, recipe, data))
    for _ in range(12):  # more than one epoch
        step()
    assert torch.equal(torch.get_rng_state(), before)


@two_cores
def test_a_resumed_run_keeps_its_number_of_threads(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=4)
    data = prepare(digits, recipe)
    seen: list[int] = []

    def stop(epoch: Epoch) -> None:
        seen.append(torch.get_num_threads())
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, data, recipe, seed=0, out=tmp_path, callback=EachEpoch(stop))
    torch.set_num_threads(2)
    (folder,) = tmp_path.iterdir()
    record = train(TINY, data, recipe, seed=0, out=tmp_path, callback=EachEpoch(stop))
    assert seen == [1, 1, 1, 1]
    assert torch.get_num_threads() == 2, "restored after the run"
    starts = json.loads((folder / "environment.json").read_text())["starts"]
    assert [start["threads"] for start in starts] == [1]
    assert record.result.epochs == 4


@pytest.fixture
def busy_core() -> Iterator[None]:
    """Keep one core busy, besides whatever else runs."""
    with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


@two_cores
@pytest.mark.usefixtures("busy_core")
@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="only Linux tells how many processes run")
def test_training_uses_no_core_that_another_program_keeps_busy(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cores = available_cores()
    recipe = tiny_recipe(epochs=1)
    data = prepare(digits, recipe)
    torch.set_num_threads(cores)
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    folders = [train(TINY, data, recipe, seed=0, out=tmp_path).folder]
    assert not caplog.messages, "a number from the environment is used as it is"
    monkeypatch.delenv("OMP_NUM_THREADS")
    folders.append(train(TINY, data, recipe, seed=1, out=tmp_path).folder)
    set_threads(cores, no_run)
    folders.append(train(TINY, data, recipe, seed=2, out=tmp_path).folder)
    environments = [json.loads((folder / "environment.json").read_text()) for folder in folders]
    given, chosen, requested = (environment["starts"][0]["threads"] for environment in environments)
    assert (given, requested) == (cores, cores)
    assert 1 <= chosen < cores
    message = f"threads: {chosen} of {cores}: other programs keep cores busy (all: --threads {cores})"
    assert caplog.messages == [message]


@two_cores
def test_a_requested_number_of_threads_is_used_by_a_resumed_run(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=4)
    data = prepare(digits, recipe)
    seen: list[int] = []

    def stop(epoch: Epoch) -> None:
        seen.append(torch.get_num_threads())
        if epoch.epoch in (2, 3):
            raise KeyboardInterrupt

    def continue_run() -> None:
        train(TINY, data, recipe, seed=0, out=tmp_path, callback=EachEpoch(stop))

    with pytest.raises(KeyboardInterrupt):
        continue_run()
    (folder,) = tmp_path.iterdir()
    torch.set_num_threads(2)
    line = "threads: 2, as requested; the run was trained with 1 so far, and rounding depends on the number"
    assert set_threads(2, lambda: FirstRun(TINY, recipe, data, RunFolder(folder))) == line
    with pytest.raises(KeyboardInterrupt):
        continue_run()
    line = "threads: 2, as in earlier epochs of the resumed run"
    assert set_threads("auto", lambda: FirstRun(TINY, recipe, data, RunFolder(folder))) == line
    continue_run()
    assert seen == [1, 1, 2, 2]
    starts = json.loads((folder / "environment.json").read_text())["starts"]
    assert [(start["first_epoch"], start["threads"]) for start in starts] == [(1, 1), (3, 2)]


@two_cores
@pytest.mark.parametrize(
    ("threads", "message"),
    [
        ("auto", r"threads: [12], the fastest for this network: a step takes [\d.,]+ ms with 1, [\d.,]+ ms with 2\n"),
        ("1", r"threads: 1, as requested\n"),
    ],
)
def test_the_command_reports_and_records_the_number_of_threads(
    tell: RunCommand, tmp_path: Path, threads: str, message: str
) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    tiny_recipe(epochs=1).save(tmp_path / "recipe.yaml")
    sizes = ["--train-size", "64", "--validation-size", "40", "--device", "cpu"]
    files = [str(tmp_path / "tiny.yaml"), "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "runs")]
    torch.set_num_threads(2)
    result = tell("train", *files, *sizes, "--threads", threads)
    assert result.code == 0
    assert re.fullmatch(message, result.err)
    threads_used = int(result.err.split()[1].strip(","))
    (environment,) = tmp_path.glob("runs/*/environment.json")
    assert json.loads(environment.read_text())["starts"][0]["threads"] == threads_used
    again = tell("train", *files, *sizes, "--threads", "auto")
    assert again.err == "threads: 2, not measured: no run is left to train on the CPU\n"


@pytest.mark.parametrize("text", ["0", "two", "-1", "1.5"])
def test_an_invalid_number_of_threads_is_rejected(tell: RunCommand, text: str) -> None:
    result = tell("train", "resnet20", "--threads", text)
    assert result.code == 2
    assert re.search(rf"--threads = '?{re.escape(text)}'?: .*, or auto", result.err)


@two_cores
def test_a_search_measures_a_network_of_its_space(tell: RunCommand, tmp_path: Path) -> None:
    tiny_recipe(epochs=1).save(tmp_path / "recipe.yaml")
    options = ["--recipe", str(tmp_path / "recipe.yaml"), "--train-size", "64", "--validation-size", "40"]
    options += ["--max-params", "20k", "--device", "cpu", "--trials", "1", "--out", str(tmp_path)]
    torch.set_num_threads(2)
    result = tell("search", *options, "--threads", "auto")
    assert result.code == 0
    assert result.err.startswith("threads: ")
    assert " the fastest for this network: " in result.err
