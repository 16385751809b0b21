"""Trainings that do not fit into the memory of their device."""

from __future__ import annotations

import logging
import resource
import sys
from pathlib import Path

import pytest
import torch
from support import TINY, RunCommand, prepare, tiny_recipe

from budgetnet.common.files import read_mapping
from budgetnet.data import DataSet
from budgetnet.engines.jobs import Job, PlannedRun
from budgetnet.engines.running import run_job
from budgetnet.runs.store import RunFolder
from budgetnet.training import memory
from budgetnet.training.callbacks import Callback, RunContext
from budgetnet.training.memory import memory_of, memory_on, parts_to_begin_with

CPU = torch.device("cpu")
RECIPE = tiny_recipe(epochs=1)


def limit(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    monkeypatch.setattr(memory, "memory_of", lambda _: size)


def test_batches_are_split_where_the_step_needs_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needed = memory_on(CPU, TINY, RECIPE).total
    for size, parts in ((needed, 1), (needed - 1, 2), (1, 2), (None, 1)):
        limit(monkeypatch, size)
        caplog.clear()
        assert parts_to_begin_with(TINY, RECIPE, CPU) == parts
        assert len(caplog.messages) == parts - 1


def test_this_machine_has_memory_for_a_tiny_network() -> None:
    known = memory_of(CPU)
    assert known is None or known > memory_on(CPU, TINY, RECIPE).total
    assert parts_to_begin_with(TINY, RECIPE, CPU) == 1


def test_a_job_that_does_not_fit_begins_with_half_batches(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limit(monkeypatch, 100 * 2**10)
    data = prepare(digits, RECIPE)
    job = Job(PlannedRun(spec=TINY, recipe=RECIPE, seed=0), RunContext())
    with caplog.at_level(logging.WARNING):
        end = run_job(job, data, out=tmp_path, callback=Callback(), report=lambda _: False)
    assert (end.outcome, end.parts) == ("trained", 2)
    (start,) = read_mapping(RunFolder(tmp_path / (end.run or "")).path / "environment.json")["starts"]
    assert start["execution"]["parts"] == 2
    (line,) = caplog.messages
    needed = memory_on(CPU, data.adapt(TINY), RECIPE).total
    assert line == (
        f"{data.adapt(TINY).label}: a training step on 16 images needs about {needed / 2**10:.1f} KiB, and this "
        "machine has 100.0 KiB: each batch is split from the start, into halves whose gradients are added"
    )


def test_a_run_that_is_finished_was_not_split(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = prepare(digits, RECIPE)
    job = Job(PlannedRun(spec=TINY, recipe=RECIPE, seed=0), RunContext())
    ends = []
    for size in (2**40, 1):
        limit(monkeypatch, size)
        ends.append(run_job(job, data, out=tmp_path, callback=Callback(), report=lambda _: False))
    assert ends[1] == ends[0]
    assert (ends[1].outcome, ends[1].parts, caplog.messages) == ("trained", 1, [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the C library of Linux")
def test_memory_that_was_freed_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()

    # Blocks that the C library takes from its heap, and a last one that keeps it from giving the others back.
    blocks = [bytearray(100_000) for _ in range(3_000)]
    last = bytearray(100_000)
    before = resident()
    del blocks
    kept = resident()
    room = before + memory_on(CPU, TINY, RECIPE).total - 200_000_000
    monkeypatch.setattr(memory, "memory_of", lambda _: room - resident())
    assert kept > before - 100_000_000, "the C library keeps it"
    assert parts_to_begin_with(TINY, RECIPE, CPU) == 1
    assert resident() < before - 200_000_000
    assert len(last) == 100_000


def test_train_prints_the_memory_of_a_step(tell: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TINY.save(tmp_path / "net.yaml")
    tiny_recipe(epochs=1).save(tmp_path / "recipe.yaml")
    command = ["train", str(tmp_path / "net.yaml"), "--recipe", str(tmp_path / "recipe.yaml"), "--device", "cpu"]
    command += ["--train-size", "64", "--validation-size", "40", "--out", str(tmp_path / "runs")]
    limit(monkeypatch, 100 * 2**10)
    first = tell(*command).out.splitlines()[1]
    assert first.startswith("memory of a training step: about ")
    assert first.endswith(" of it for the backward pass; only 100.0 KiB are available, so choose a smaller batch_size")
    limit(monkeypatch, 2**40)
    assert tell(*command).out.splitlines()[1].endswith(" of it for the backward pass")
