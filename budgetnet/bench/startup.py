"""What one waits for before training begins: from the command to the end of the first step, and its parts."""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.bench.measure import Goal
from budgetnet.common.errors import BudgetnetError
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe

if TYPE_CHECKING:
    import torch

_PROGRAM = """
import time
up = time.time()
import sys
sys.path[:] = sys.argv[1:]
from budgetnet.bench.startup import first_step
first_step(up)
"""
"""A fresh interpreter's part. With the caller's path for imports, as programs may have lengthened theirs."""


class Start(NamedTuple):
    """Seconds of one start, part by part in their order."""

    interpreter: float
    """Until Python runs the first line."""
    imports: float
    """All that the command imports."""
    data: float
    """The data set is loaded, and before it the device chosen."""
    device: float
    """The images are split and lie on the device."""
    first_step: float
    """The network is built and its first step done, with the run folder begun."""

    @property
    def total(self) -> float:
        """From the command to the end of the first step."""
        return sum(self)


class StartBenchmark(NamedTuple):
    """What was started, and how long it took."""

    environment: dict[str, Any]
    spec: ModelSpec
    data: str
    starts: list[Start]

    @property
    def parts(self) -> dict[str, dict[str, float]]:
        """Median, minimum and maximum of each part, and of the whole, over all starts; in seconds."""
        times = {part: [getattr(start, part) for start in self.starts] for part in (*Start._fields, "total")}
        return {
            part: {"median": statistics.median(each), "minimum": min(each), "maximum": max(each)}
            for part, each in times.items()
        }

    @property
    def goals(self) -> list[Goal]:
        """The goal for a CUDA device; there is none for others."""
        total = self.parts["total"]["median"]
        goal = Goal("from the command to the end of the first step, at most", "seconds", total, 5.0, total <= 5.0)
        return [goal] if self.environment["device"] == "cuda" else []

    def to_mapping(self) -> dict[str, Any]:
        """The benchmark as plain data; times in seconds."""
        return {
            "benchmark": "start",
            "environment": self.environment,
            "network": {"name": self.spec.label, **self.spec.cost._asdict()},
            "data": self.data,
            "rows": [{**start._asdict(), "total": start.total} for start in self.starts],
            "parts": self.parts,
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
    """Starts fresh interpreters, one behind the other, that train a network for one step.

    Args:
        spec: the network; its image shape and classes are replaced by the data's.
        recipe: how it is trained.
        data: the data set, by a name that `load_dataset` takes and that is known to load.
        device: where it is trained.
        repeat: how many interpreters.
        imports: modules that the command imports before it begins.
        progress: is told what is being done.

    Raises:
        BudgetnetError: an interpreter ended before its first step.
    """
    from budgetnet.training.devices import describe_environment

    task = {"spec": spec.to_mapping(), "recipe": recipe.to_mapping(), "data": data, "device": device.type}
    starts = []
    for number in range(repeat):
        progress(f"start {number + 1} of {repeat}")
        # Made here, so that it goes away even where the interpreter is killed.
        with TemporaryDirectory(prefix="budgetnet-bench-") as folder:
            starts.append(_start(json.dumps({**task, "imports": list(imports), "out": folder})))
    return StartBenchmark(describe_environment(device), spec, data, starts)


def _start(task: str) -> Start:
    path = [entry for entry in sys.path if isinstance(entry, str)]
    # -P, or the working folder could slip modules of its own beneath the first imports.
    command = [sys.executable, "-P", "-c", _PROGRAM, *path]
    began = time.time()
    done = subprocess.run(command, input=task, capture_output=True, text=True, check=False)  # noqa: S603 - this Python
    if done.returncode:
        complaint = done.stderr.strip().splitlines()[-1:] or [f"it was ended from outside ({done.returncode})"]
        raise BudgetnetError(f"a start ended before its first step: {complaint[0][:500]}")
    moments = [began, *json.loads(done.stdout.splitlines()[-1])]
    return Start(*(later - moment for moment, later in pairwise(moments)))


def first_step(up: float) -> None:
    """What a fresh interpreter does: the task on standard input, to its first step; then it prints when it was where.

    Args:
        up: when it ran its first line, in seconds since 1970.
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

    moments = [up, time.time()]
    device = choose_device(task["device"])
    recipe = Recipe.from_mapping(task["recipe"])
    dataset = load_dataset(task["data"])
    moments.append(time.time())
    data = TrainingData.prepare(dataset, recipe, device=device)
    synchronise(device)
    moments.append(time.time())

    class FirstStep(Callback):
        def stepped(self, epoch: int, share: float, *, worker: int) -> None:  # noqa: ARG002 - the first one is enough
            synchronise(device)
            moments.append(time.time())
            raise _Stepped

    try:
        train(ModelSpec.from_mapping(task["spec"]), data, recipe, seed=0, out=Path(task["out"]), callback=FirstStep())
    except _Stepped:
        sys.stdout.write(json.dumps(moments) + "\n")


class _Stepped(Exception):  # noqa: N818 - not an error: the first step is done
    """Leaves training behind its first step."""
