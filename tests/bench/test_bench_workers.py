"""`bench workers`: parallel training, killed processes, lack of memory and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support import RunCommand, child_environment, until, wait_for
from worker_support import are_gone, children_of

from budgetnet.bench import workers
from budgetnet.bench.scaling import network_of
from budgetnet.bench.workers import ProcessResult
from budgetnet.common.errors import BudgetnetError
from budgetnet.model.zoo import get

WORKERS = ["bench", "workers", "--params", "0.1M", "--batch", "8", "--device", "cpu"]


class RecordedPopen(subprocess.Popen[str]):
    """A process that remembers its environment."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.threads = (options.get("env") or {}).get("OMP_NUM_THREADS")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[RecordedPopen]:
    """Processes that the benchmark starts, in order."""
    processes: list[RecordedPopen] = []

    def start(*arguments: Any, **options: Any) -> RecordedPopen:
        process = RecordedPopen(*arguments, **options)
        if "budgetnet.bench.workers" in arguments[0]:
            processes.append(process)
        return process

    monkeypatch.setattr("budgetnet.bench.workers.subprocess.Popen", start)
    return processes


def test_workers_benchmark_sums_over_processes(tell: RunCommand, started: list[RecordedPopen]) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    answer = tell(*WORKERS, "--workers", "2", "--seconds", "0.2", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = json.loads(answer.out)
    assert list(found) == ["benchmark", "environment", "batch_size", "image_size", "precision", "rows"]
    assert (found["benchmark"], found["batch_size"], found["image_size"]) == ("workers", 8, 32)
    cores = os.cpu_count() or 1
    assert [(row["workers"], row["threads"]) for row in found["rows"]] == [(1, cores), (2, max(1, cores // 2))]
    alone = None
    for row in found["rows"]:
        network = network_of(100_000, image_size=32)
        assert (row["params"], row["macs"]) == (network.params, network.cost.macs)
        assert len(row["processes"]) == row["workers"]
        assert all(each["images"] % 8 == 0 and each["seconds"] >= 0.2 for each in row["processes"])
        speeds = [each["images"] / each["seconds"] for each in row["processes"]]
        alone = alone or sum(speeds)
        assert row["images_per_second"] == pytest.approx(sum(speeds))
        assert row["ratio"] == pytest.approx(sum(speeds) / alone)
        assert [row["slowest"], row["fastest"]] == pytest.approx([min(speeds), max(speeds)])
        memories = [each["peak_memory"] for each in row["processes"]]
        assert row["peak_memory"] == (None if None in memories else max(memories))
    assert os.environ.get("OMP_NUM_THREADS") == before
    assert [process.threads for process in started] == [str(cores), *[str(max(1, cores // 2))] * 2]
    assert all(process.poll() is not None for process in started)


def test_workers_print_a_table_of_at_most_80_columns(tell: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fake_results(job: Any, count: int) -> tuple[ProcessResult, ...]:
        calls.append((job["spec"], count))
        return (ProcessResult(1_000_000, 10.0, 12_345_678_901),) * count

    monkeypatch.setattr(workers, "_train_in_parallel", fake_results)
    answer = tell("bench", "workers", "--workers", "4,2,4", "--params", "5M,0.3M,300k", "--device", "cpu")
    assert (answer.code, answer.err) == (0, "")
    small, large = (network_of(params, image_size=32).to_mapping() for params in (300_000, 5_000_000))
    assert calls == [(spec, count) for spec in (small, large) for count in (1, 2, 4)]
    *lines, _processor, _versions = answer.out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "batch size 32" in answer.out
    assert "400,000 │  4.00" in answer.out


def test_killed_process_is_one_line_and_ends_the_others(tell: RunCommand, started: list[RecordedPopen]) -> None:
    def kill_one_of_two() -> None:
        deadline = time.monotonic() + 120
        while len(started) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        started[1].kill()

    killer = threading.Thread(target=kill_one_of_two)
    killer.start()
    answer = tell(*WORKERS, "--workers", "2", "--seconds", "0.01")
    killer.join()
    assert len(started) == 3
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert answer.err.startswith("error: a training process (2 at once, 98,497 parameters each) ended early: ")
    assert "signal 9" in answer.err
    assert all(process.poll() is not None for process in started)


JOB: dict[str, Any] = {
    "spec": get("resnet20").to_mapping(),
    "batch_size": 8,
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
    "seconds": 1.0,
}


def test_without_a_number_of_threads_the_environment_is_unchanged(
    monkeypatch: pytest.MonkeyPatch, started: list[RecordedPopen]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with workers._processes({**JOB, "threads": None}, 1):
        assert [process.threads for process in started] == ["7"]


def test_out_of_memory_is_reported() -> None:
    with pytest.raises(BudgetnetError, match="out of memory on this machine or device while training 1 at once"):
        workers._train_in_parallel({**JOB, "batch_size": 10**9}, 1)


def test_a_process_exits_silently_with_its_parent(capfd: pytest.CaptureFixture[str]) -> None:
    with workers._processes(JOB, 1) as (process,):
        workers._receive(process, "")
        process.communicate(timeout=60)
    assert (process.returncode, *capfd.readouterr()) == (0, "", "")


@pytest.mark.parametrize("received", ["", '{"spec": {"sta'])
def test_a_process_exits_silently_if_its_parent_ends_before_it_has_sent_the_job(received: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "budgetnet.bench.workers"],
        check=False,
        input=received,
        capture_output=True,
        text=True,
        env=child_environment(),
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of child processes")
def test_ctrl_c_ends_every_process_with_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "budgetnet", *WORKERS, "--workers", "2", "--seconds", "300"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
        # A new process group, because Ctrl-C is sent to the whole group.
        start_new_session=True,
    )
    try:
        found = wait_for(lambda: children_of(process.pid), process=process)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        # Some versions of Typer handle the interrupt themselves and print nothing.
        assert (process.returncode, out, err in ("", "interrupted\n")) == (130, "", True), err
        until(lambda: are_gone(found))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
