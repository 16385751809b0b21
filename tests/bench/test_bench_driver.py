"""Benchmark of a search's driver with simulated workers."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from support import RunCommand, restarts, tiny_recipe

from budgetnet.bench.driver import run
from budgetnet.bench.simulated_engine import SimulatedEngine
from budgetnet.engines.deaths import Ending
from budgetnet.engines.jobs import Job, JobEnd, PlannedRun
from budgetnet.model.zoo import get
from budgetnet.runs.records import Epoch
from budgetnet.training.callbacks import Callback

RECIPE = tiny_recipe(epochs=4, schedule=restarts(2))


class Slow:
    """Hands out a few jobs, and takes one second of a clock of its own for each."""

    def __init__(self, jobs: int) -> None:
        self.left, self.seconds = jobs, 0.0
        self.begun: Counter[int] = Counter()
        self.epochs: dict[int, list[int]] = {}
        self.ended_: Counter[int] = Counter()

    def next_job(self, worker: int) -> Job | None:
        if not self.left:
            return None
        self.left -= 1
        self.seconds += 1.0
        self.begun[worker] += 1
        self.epochs[worker] = []
        return Job(PlannedRun(spec=get("resnet20"), recipe=RECIPE, seed=0))

    def report(self, worker: int, epoch: Epoch) -> bool:
        self.epochs[worker].append(epoch.epoch)
        return False

    def ended(self, worker: int, end: JobEnd) -> None:
        assert end.outcome == "trained"
        assert self.epochs[worker] == sorted(set(self.epochs[worker]))
        assert self.epochs[worker][-1] == 4
        self.ended_[worker] += 1

    def interrupted(self, worker: int, *, death: Ending | None, epochs: int | None) -> None:
        raise AssertionError("nothing interrupts simulated workers")

    def tick(self) -> None:
        pass


def test_every_simulated_job_ends_once() -> None:
    dispatcher = Slow(jobs=30)
    SimulatedEngine(workers=4, candidate_seconds=10.0).run(dispatcher, Callback())
    assert dispatcher.begun == dispatcher.ended_
    assert dispatcher.begun.total() == 30
    assert len(dispatcher.begun) == 4


def test_workers_wait_while_the_driver_is_busy() -> None:
    dispatcher = Slow(jobs=2)
    engine = SimulatedEngine(workers=2, candidate_seconds=1_000.0, clock=lambda: dispatcher.seconds)
    engine.run(dispatcher, Callback())
    # One waits for a second until it has its job, the other for two.
    assert engine.idle_share * 2 * engine.now == pytest.approx(3.0)
    assert engine.now > 500


def test_the_real_driver_trains_on_after_earlier_trials() -> None:
    result = run(
        workers=5,
        earlier=30,
        candidates=20,
        candidate_seconds=60,
        sampler="tpe",
        pruner="asha",
        progress=lambda _: None,
    )
    assert (result.workers, result.earlier, result.candidates) == (5, 30, 20)
    assert 0 < result.cpu_per_candidate < 60
    assert 0 <= result.idle_percent <= 100
    assert {goal.unit for goal in result.goals} == {"seconds", "percent", "bytes"}


def test_the_command_writes_json(tell: RunCommand) -> None:
    words = ("bench", "driver", "--workers", "3", "--earlier", "5", "--candidates", "4", "--json")
    result = json.loads(tell(*words).out)
    assert result["benchmark"] == "driver"
    assert result["candidates"] == 4
