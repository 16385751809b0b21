"""Benchmark of start-up: the time from the command to the end of the first training step, by phase."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.bench.interpreter import run_python
from budgetnet.bench.measure import Goal, Spread
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe

if TYPE_CHECKING:
    import torch

_PROGRAM = """
import time
started = time.time()
from budgetnet.bench.startup import print_times_to_first_step
print_times_to_first_step(started)
"""
"""Program of the fresh interpreter."""


class Start(NamedTuple):
    """Seconds of each phase of one start, in order."""

    interpreter: float
    """Until Python runs the first line."""
    imports: float
    """Imports of the command."""
    data: float
    """The device is chosen and the data set loaded."""
    device: float
    """The images are split and copied to the device."""
    first_step: float
    """The network is built, the run folder created and the first step finished."""

    @property
    def total(self) -> float:
        """From the command to the end of the first step."""
        return sum(self)


class StartBenchmark(NamedTuple):
    """Times of several starts."""

    environment: dict[str, Any]
    spec: ModelSpec
    data: str
    starts: list[Start]

    @property
    def parts(self) -> dict[str, Spread]:
        """Times of each phase and of the total, over all starts."""
        return {part: Spread.of([getattr(start, part) for start in self.starts]) for part in (*Start._fields, "total")}

    @property
    def goals(self) -> list[Goal]:
        """Goal for a CUDA device; none for others."""
        total = self.parts["total"].median
        goal = Goal.at_most("from the command to the end of the first step, at most", "seconds", total, 5.0)
        return [goal] if self.environment["device"] == "cuda" else []

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds."""
        return {
            "benchmark": "start",
            "environment": self.environment,
            "network": {"name": self.spec.label, **self.spec.cost._asdict()},
            "data": self.data,
            "rows": [{**start._asdict(), "total": start.total} for start in self.starts],
            "parts": {part: spread._asdict() for part, spread in self.parts.items()},
            "goals": [goal._asdict() for goal in self.goals],
        }


def run(
    spec: ModelSpec,
    recipe: Recipe,
    *,
    data: str,
    device: torch.device,
    repeat: int,
    imports: Sequence[str],
    progress: Callable[[str], None],
) -> StartBenchmark:
    """Train a network for one step in fresh interpreters, one after another.

    Args:
        spec: the network, for the data's image shape and classes.
        recipe: training recipe.
        data: name of a data set that is known to load.
        device: where to train.
        repeat: number of interpreters.
        imports: modules that the command imports before it loads data.
        progress: called with a description of each step.

    Raises:
        BudgetnetError: an interpreter fails before the end of its first step.
    """
    from budgetnet.training.devices import describe_environment

    task = {
        "spec": spec.to_mapping(),
        "recipe": recipe.to_mapping(),
        "data": data,
        "device": device.type,
        "imports": list(imports),
    }
    starts = []
    for number in range(repeat):
        progress(f"start {number + 1} of {repeat}")
        # Created here, so that it is removed even if the interpreter is killed.
        with TemporaryDirectory(prefix="budgetnet-bench-") as folder:
            starts.append(_start(json.dumps({**task, "out": folder})))
    return StartBenchmark(describe_environment(device), spec, data, starts)


def _start(task: str) -> Start:
    start = time.time()
    output = run_python("-c", _PROGRAM, stdin=task, failure="the start failed before its first step")
    times = [start, *json.loads(output.splitlines()[-1])]
    return Start(*(later - earlier for earlier, later in pairwise(times)))


def print_times_to_first_step(started: float) -> None:
    """Train for one step as the JSON on standard input says, and print the time of each phase's end as JSON.

    Args:
        started: when this interpreter ran its first line, in seconds since 1970.
    """
    task = json.load(sys.stdin)
    for module in task["imports"]:
        importlib.import_module(module)
    from budgetnet.bench.hardware import synchronise
    from budgetnet.data import load_dataset
    from budgetnet.data.training_data import TrainingData
    from budgetnet.training.callbacks import Callback
    from budgetnet.training.devices import choose_device
    from budgetnet.training.trainer import train

    times = [started, time.time()]
    device = choose_device(task["device"])
    recipe = Recipe.from_mapping(task["recipe"])
    dataset = load_dataset(task["data"])
    times.append(time.time())
    data = TrainingData.prepare(dataset, recipe, device=device)
    synchronise(device)
    times.append(time.time())

    class StopAfterFirstStep(Callback):
        def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:  # noqa: ARG002 - only the first call
            synchronise(device)
            times.append(time.time())
            raise _FirstStepFinished

    try:
        train(
            ModelSpec.from_mapping(task["spec"]),
            data,
            recipe,
            seed=0,
            out=Path(task["out"]),
            callback=StopAfterFirstStep(),
        )
    except _FirstStepFinished:
        sys.stdout.write(json.dumps(times) + "\n")


class _FirstStepFinished(Exception):  # noqa: N818 - not an error
    """Raised to stop training after the first step."""
