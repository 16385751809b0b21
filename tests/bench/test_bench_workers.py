"""Networks trained side by side: sums over processes, and what happens when one of them does not come to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe, active_children
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from support import Tell, child_environment, wait_for

from budgetnet.bench import workers
from budgetnet.bench.scaling import network_of
from budgetnet.bench.variants import Setting
from budgetnet.bench.workers import Trained
from budgetnet.common.errors import BudgetnetError
from budgetnet.model.zoo import get
from budgetnet.runs.recipe import Recipe

WORKERS = ["bench", "workers", "--params", "0.1M", "--batch", "8", "--device", "cpu"]


def blocked() -> set[Any]:
    """Signals that this thread does not hear for now."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_workers_train_side_by_side_and_are_summed_up(tell: Tell) -> None:
    before = (os.environ.get("OMP_NUM_THREADS"), blocked())
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
    assert (os.environ.get("OMP_NUM_THREADS"), blocked()) == before
    assert active_children() == []


def test_workers_are_a_table_that_fits_eighty_columns(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def trained(job: Any, count: int) -> tuple[Trained, ...]:
        asked.append((job.setting.spec.params, count))
        return (Trained(1_000_000, 10.0, 12_345_678_901),) * count

    monkeypatch.setattr(workers, "_train_together", trained)
    answer = tell("bench", "workers", "--workers", "4,2,4", "--params", "5M,0.3M,300k", "--device", "cpu")
    assert (answer.code, answer.err) == (0, "")
    small, large = (network_of(params, image_size=32).params for params in (300_000, 5_000_000))
    assert asked == [(params, count) for params in (small, large) for count in (1, 2, 4)]
    *lines, _processor, _versions = answer.out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "32 images a step" in answer.out
    assert "400,000 │  4.00" in answer.out


def test_processes_find_their_share_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with workers._inherited(3):
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with workers._inherited(None):
        assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_ctrl_c_while_processes_are_started_waits_and_is_not_lost() -> None:
    started = []
    with pytest.raises(KeyboardInterrupt), workers._deaf():
        assert signal.SIGINT in blocked()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        started.append("all")
    assert started == ["all"]
    assert signal.SIGINT not in blocked()


def test_a_killed_process_is_told_in_one_line_and_takes_the_others_along(tell: Tell) -> None:
    seen: list[int | None] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            children = active_children()
            if len(children) == 2:
                seen.extend(child.pid for child in children)
                children[0].kill()
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    answer = tell(*WORKERS, "--workers", "2", "--seconds", "0.01")
    killer.join()
    assert len(seen) == 2
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert answer.err.startswith("error: a process that trains (2 at once, of 98,497 parameters each) was ended")
    assert "signal 9" in answer.err
    assert active_children() == []


def test_a_process_without_memory_says_so_and_one_that_nobody_waits_for_is_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = workers._Job(Setting(get("resnet20"), Recipe(), 8, torch.device("cpu")), "float32", 1, 1.0)

    def without_memory(_line: Connection, _job: object) -> Trained:
        raise MemoryError

    monkeypatch.setattr(workers, "_train", without_memory)
    here, there = Pipe()
    workers._work(there, job)
    worker: Any = workers._Worker(None, here)  # type: ignore[arg-type]
    with pytest.raises(BudgetnetError, match="does not hold the networks in training: 3 at once"):
        workers._answer(worker, 3, job)
    monkeypatch.setattr(workers, "_train", lambda line, _job: line.recv())
    here.close()
    workers._work(there, job)
    there.close()


def runs(process: str) -> bool:
    """Whether a process is there and has not ended, which one may have that nobody has asked for its end yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for child processes where Linux lists them")
def test_ctrl_c_ends_every_process_with_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "budgetnet", *WORKERS, "--workers", "2", "--seconds", "300"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
        # A terminal's Ctrl-C reaches the whole group, which here must not be the tests' own.
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def several() -> list[str] | None:
        """One process that trains, and one of Python's own, which ends by itself."""
        found = children.read_text().split() if children.exists() else []
        return found if len(found) >= 2 else None

    try:
        found = wait_for(several, process=process)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        # Some versions of Typer answer the interrupt themselves, without a word.
        assert (process.returncode, out, err in ("", "interrupted\n")) == (130, "", True), err
        deadline = time.monotonic() + 60
        while any(map(runs, found)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(runs, found))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
