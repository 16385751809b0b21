"""Benchmark of a search's driver: its CPU time for each candidate with many simulated workers and earlier trials.

The driver, its sampler, pruner and storage are the real ones. Workers are simulated: each candidate takes a number of
seconds on a virtual clock and has invented accuracies. The driver's own work takes real time, which is added to the
virtual clock, so that workers wait for a driver that is too slow.
"""

from __future__ import annotations

import hashlib
import os
import resource
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from optuna.trial import TrialState, create_trial

from budgetnet.bench.measure import Goal
from budgetnet.bench.simulated_engine import SimulatedEngine
from budgetnet.data import load_dataset
from budgetnet.data.training_data import TrainingData
from budgetnet.model.budget import Budget
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.study.config import PrunerName, SamplerName, SearchConfig
from budgetnet.study.context import Plan, SearchContext
from budgetnet.study.driver import Driver
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.fitting import fit
from budgetnet.study.space.named import named_space
from budgetnet.study.storage import default_storage, open_storage, open_study
from budgetnet.study.writer import TrialWriter
from budgetnet.training.callbacks import Callback
from budgetnet.training.devices import describe_environment

_SEED = 0
_NETWORKS = 200
"""Different networks among the earlier trials."""
_FLUSHED = 5_000
"""Earlier trials that are written in one transaction."""
_GOAL_CPU, _GOAL_IDLE = 0.020, 5.0


class DriverBenchmark(NamedTuple):
    """A driver with simulated workers."""

    environment: dict[str, Any]
    workers: int
    earlier: int
    """Trials of the study before."""
    candidates: int
    """Candidates trained in the simulation."""
    sampler: SamplerName
    pruner: PrunerName
    candidate_seconds: float
    """Simulated training time of a candidate, on average."""
    opening_seconds: float
    """Time to open the study."""
    memory: int
    """Largest resident memory of the process in bytes."""
    cpu_seconds: float
    """CPU time of the driver in the simulation."""
    idle_percent: float
    """Share of the workers' time in which they waited for the driver."""
    report_seconds: float
    """Median time to answer a report."""

    @property
    def cpu_per_candidate(self) -> float:
        """CPU time of the driver for each candidate, in seconds."""
        return self.cpu_seconds / self.candidates

    @property
    def goals(self) -> list[Goal]:
        """Goals."""
        return [
            Goal.at_most("CPU time of the driver per candidate", "seconds", self.cpu_per_candidate, _GOAL_CPU),
            Goal.at_most("idle time of workers", "percent", self.idle_percent, _GOAL_IDLE),
            Goal.at_most("time to open the study", "seconds", self.opening_seconds, 15.0),
            Goal.at_most("memory", "bytes", self.memory, 2e9),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds."""
        goals = [goal._asdict() for goal in self.goals]
        return {"benchmark": "driver", **self._asdict(), "cpu_per_candidate": self.cpu_per_candidate, "goals": goals}


def run(
    *,
    workers: int,
    earlier: int,
    candidates: int,
    candidate_seconds: float,
    sampler: SamplerName,
    pruner: PrunerName,
    progress: Callable[[str], None],
) -> DriverBenchmark:
    """Run the driver in a temporary folder, with the default storage.

    Args:
        workers: number of simulated workers.
        earlier: trials that the study has before.
        candidates: candidates to train.
        candidate_seconds: simulated training time of a candidate, on average.
        sampler: sampler of the search.
        pruner: pruner of the search.
        progress: called with a description of each step.
    """
    recipe, space = named_recipe("search"), named_space("resnet")
    data = TrainingData.prepare(load_dataset("digits"), recipe, device=torch.device("cpu"))
    config = SearchConfig(recipe=recipe, seed=_SEED, sampler=sampler, pruner=pruner)
    settings = StudySettings(
        config=config, space=space, recipe=recipe, data=data.record, device="cpu", precision="float32"
    )
    with TemporaryDirectory(prefix="budgetnet-bench-") as name:
        out = Path(name)
        storage = open_storage(default_storage(out), create=True)
        context = SearchContext(settings, data, "simulated", storage, out)
        lock = context.lock
        try:
            with lock.held():
                progress(f"writing {earlier:,} earlier trials")
                study = open_study(storage, context.study_name, settings)
                _write_earlier(context, TrialWriter(storage, context.study_name, [], lock=lock), earlier)
                progress("opening the study")
                # A new connection, as the cache of this one has the trials already.
                storage = open_storage(default_storage(out), create=True)
                context = context._replace(storage=storage)
                start = time.perf_counter()
                study = open_study(storage, context.study_name, settings)
                driver = Driver(context, study, plan=Plan(earlier + candidates), callback=Callback(), lock=lock)
                opened = time.perf_counter() - start
                progress(f"simulating {workers:,} workers")
                engine = SimulatedEngine(workers=workers, candidate_seconds=candidate_seconds)
                driver.run(engine)
        finally:
            storage.remove_session()
            storage.engine.dispose()
    return DriverBenchmark(
        environment=describe_environment(torch.device("cpu")),
        workers=workers,
        earlier=earlier,
        candidates=candidates,
        sampler=sampler,
        pruner=pruner,
        candidate_seconds=candidate_seconds,
        opening_seconds=opened,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        cpu_seconds=engine.cpu_seconds,
        idle_percent=100 * engine.idle_share,
        report_seconds=engine.report_seconds,
    )


def _write_earlier(context: SearchContext, writer: TrialWriter, count: int) -> None:
    """Write complete trials with random accuracies; networks repeat, but each counts as a candidate of its own."""
    settings, data = context.settings, context.data
    distributions = settings.space.proposed("fit")
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=_SEED))
    budget: Budget = settings.budget
    networks = []
    for _ in range(min(_NETWORKS, count)):
        params = sampler.ask(distributions).params
        image: dict[str, Any] = {"input_shape": data.input_shape, "num_classes": data.num_classes}
        networks.append((params, fit(settings.space, params, budget=budget, sizing="fit", **image)))
    generator = np.random.default_rng(_SEED)
    ends = settings.recipe.schedule.cycle_ends(settings.recipe.epochs)
    for number in range(count):
        params, spec = networks[number % len(networks)]
        accuracy = generator.uniform(0.5, 0.95)
        trial = create_trial(
            state=TrialState.COMPLETE,
            value=accuracy,
            params=params,
            distributions=distributions,
            intermediate_values={end: accuracy * end / settings.recipe.epochs for end in ends},
            user_attrs={
                "architecture": spec.label,
                "candidate": hashlib.sha256(str(number).encode()).hexdigest(),
                "spec": spec.digest,
                **spec.cost._asdict(),
                "blocks": sum(stage.blocks for stage in spec.stages),
                "budget_used": round(budget.share_used(spec.cost, budget.needs(spec)), 6),
                "run": f"{spec.label}-s0-{number:010x}",
                "seed": _SEED,
                "host": os.uname().nodename,
                "trained": True,
                "status": "complete",
                "ended": "simulated",
                "epochs": settings.recipe.epochs,
                "cycles": len(ends),
                "seconds": 1.0,
                "train_flops": 1,
                "validation_accuracy": round(accuracy, 6),
                "validation_correct": int(accuracy * 10_000),
                "validation_images": 10_000,
            },
        )
        trial.number = number
        trial.datetime_start = datetime(2026, 1, 1) + timedelta(minutes=number)
        trial.datetime_complete = trial.datetime_start + timedelta(minutes=1)
        writer.insert(trial)
        if number % _FLUSHED == _FLUSHED - 1:
            writer.flush(wait=True)
    writer.flush(wait=True)
