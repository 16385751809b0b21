"""Shared test helpers: tiny networks and search spaces, command-line processes, polling and JSON schema checks."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import process_support
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.data.dataset import make_dataset
from budgetnet.data.prediction_images import InputImage, load_images
from budgetnet.data.training_data import TrainingData
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch, RunRecord, RunResult
from budgetnet.runs.schedule import EarlyStopping, Schedule
from budgetnet.study.space import SearchSpace
from budgetnet.training.callbacks import Callback

Result = TypeVar("Result")


class EachEpoch(Callback):
    """Callback that calls a function after every epoch."""

    def __init__(self, call: Callable[[Epoch], None]) -> None:
        self._call = call

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        self._call(epoch)


class StopAfter:
    """Pruning callback that stops a run after an epoch, or raises an error there."""

    def __init__(self, epoch: int, *, error: BaseException | None = None) -> None:
        self._epoch, self._error = epoch, error

    def confirms_stop(self, result: RunResult) -> bool:
        return True

    def check_resumed(self, curves: Sequence[Epoch]) -> str | None:
        return None

    def check_epoch(self, epoch: Epoch) -> str | None:
        if epoch.epoch < self._epoch:
            return None
        if self._error is not None:
            raise self._error
        return "others were better"


class CommandResult(NamedTuple):
    """Exit code and output of the command line."""

    code: int
    out: str
    err: str


RunCommand = Callable[..., CommandResult]

TINY = ModelSpec.resnet(channels=[8], input_shape=(1, 8, 8))
"""A network that trains in milliseconds per epoch on a few digits."""

TINY_SPACE: dict[str, Any] = {
    "stages": [1, 2],
    "channels": [8, 64],
    "growth": [1.0, 2.0],
    "blocks": [1, 2],
    "full_size_stages": [1, 1],
    "first_kernel_sizes": [3],
}
"""A search space of networks with about 1,300 to 400,000 parameters."""

PAIR_SPACE: dict[str, Any] = {
    "stages": [1, 1],
    "channels": [8, 16],
    "growth": [1.0],
    "blocks": [1, 1],
    "full_size_stages": [1, 1],
    "first_kernel_sizes": [3],
    "block_kinds": ["basic"],
    "squeeze_excitation_ratios": [0.0],
}
"""A search space of exactly two networks."""


def tiny_recipe(**changes: Any) -> Recipe:
    """Return a two-epoch recipe: constant learning rate, float32, no augmentation, no early stopping."""
    settings: dict[str, Any] = {
        "learning_rate": 0.05,
        "batch_size": 16,
        "epochs": 2,
        "schedule": Schedule(kind="constant"),
        "early_stopping": None,
        "augmentation": Augmentation(crop_padding=0, flip=False),
        "precision": "float32",
    }
    return Recipe(**{**settings, **changes})


def prepare(dataset: DataSet, recipe: Recipe, *, train_size: int = 64, validation_size: int = 40) -> TrainingData:
    device = torch.device("cpu")
    sizes = {"train_size": train_size, "validation_size": validation_size}
    return TrainingData.prepare(dataset, recipe, device=device, **sizes)


def untimed(record: RunRecord) -> tuple[Any, ...]:
    """Return everything that a run produces except durations."""
    curves = [epoch._replace(seconds=0.0) for epoch in record.curves]
    return (record.folder / "best.safetensors").read_bytes(), curves, record.result.model_copy(update={"seconds": 0.0})


@contextmanager
def learning_rates() -> Iterator[list[float]]:
    """Record the learning rate used by each optimiser step."""
    used: list[float] = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: used.append(float(optimizer.param_groups[0]["lr"])))
    try:
        yield used
    finally:
        handle.remove()


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def save_torch(state: Any, path: Path) -> None:
    torch.save(state, path)


def save_safetensors(state: dict[str, Tensor], path: Path) -> None:
    save_file(state, path)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def enlarged(dataset: DataSet) -> DataSet:
    """Return the data set with images of twice the side, each pixel repeated four times."""
    images = [each.repeat(2, axis=2).repeat(2, axis=3) for each in (dataset.train_images, dataset.train_images[:50])]
    return make_dataset(
        name="enlarged digits",
        train_images=images[0].transpose(0, 2, 3, 1),
        train_labels=dataset.train_labels,
        test_images=images[1].transpose(0, 2, 3, 1),
        test_labels=dataset.train_labels[:50],
        provenance="made for this test",
    )


def load_image(path: Path, *, input_shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Read one image file as a prediction does; raise the error if it is not valid."""
    (image,) = load_images([InputImage(str(path), path)], input_shape=input_shape)
    if isinstance(image, InputError):
        raise image
    return image


def restarts(first_cycle: int, *, cycle_factor: int = 1, minimum: float = 0.0) -> Schedule:
    return Schedule(first_cycle=first_cycle, cycle_factor=cycle_factor, minimum=minimum)


def patient(patience: int, *, min_delta: float = 0.0) -> EarlyStopping:
    return EarlyStopping(patience=patience, min_delta=min_delta)


def write_space(path: Path, space: dict[str, Any]) -> str:
    SearchSpace.from_mapping(space).save(path)
    return str(path)


def start(*arguments: str, cwd: Path, fresh: bool = False) -> Any:
    """Start the command line in a process of its own; ``fresh``, in one that loads Python and the package itself."""
    if process_support.AVAILABLE and not fresh:
        return process_support.ForkedProcess(arguments, cwd=cwd, environment=child_environment())
    return subprocess.Popen(
        [sys.executable, "-m", "budgetnet", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )


def child_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


@contextmanager
def started(*arguments: str, cwd: Path, fresh: bool = False) -> Iterator[Any]:
    """A process of the command line that does not outlive the block."""
    process = start(*arguments, cwd=cwd, fresh=fresh)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finished(*arguments: str, cwd: Path, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end."""
    with started(*arguments, cwd=cwd, fresh=fresh) as process:
        stdout, stderr = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def until(condition: Callable[[], Result | None], *, timeout: float = 60) -> Result:
    """Poll a condition and return its first true result."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.005)
    raise AssertionError(f"the condition was not met within {timeout:g} s")


def wait_for(condition: Callable[[], Result | None], *, process: Any, timeout: float = 240) -> Result:
    """Poll a condition and return its first true result; fail as soon as the process has ended without one."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None
        if result := condition():
            return result
        if has_ended:
            raise AssertionError(f"the process ended too early: {process.communicate()}")
        time.sleep(0.005)
    raise AssertionError(f"the condition was not met within {timeout:g} s")


def strict_json(text: str) -> Any:
    """Read JSON, which has no word for infinities and NaN."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return modification time and content of every file in a folder and its subfolders."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


TYPES: dict[str, tuple[type, ...]] = {"object": (dict,), "array": (list,), "string": (str,), "integer": (int,)}
TYPES |= {"boolean": (bool,), "null": (type(None),), "number": (int, float)}


def matches(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Return whether a value matches a JSON schema; supports the keywords that this package's schemas use."""
    if "$ref" in schema:
        schema = {**root["$defs"][schema["$ref"].rpartition("/")[2]], **schema}
    rules = [
        type(value) in TYPES[schema["type"]] if "type" in schema else True,
        value in schema.get("enum", [value]),
        value == schema.get("const", value),
        "anyOf" not in schema or any(matches(option, value, root) for option in schema["anyOf"]),
    ]
    if isinstance(value, (int, float)):
        rules += [value >= schema.get("minimum", -math.inf), value > schema.get("exclusiveMinimum", -math.inf)]
        rules += [value <= schema.get("maximum", math.inf), value < schema.get("exclusiveMaximum", math.inf)]
    elif isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        rules.append(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf))
        items = [*prefix, *[schema.get("items", {})] * (len(value) - len(prefix))]
        rules += [matches(item, entry, root) for item, entry in zip(items, value, strict=False)]
    elif isinstance(value, dict):
        known = schema.get("properties", {})
        rules.append(schema.get("additionalProperties", True) or value.keys() <= known.keys())
        rules.append(set(schema.get("required", ())) <= value.keys())
        rules += [matches(known.get(key, {}), entry, root) for key, entry in value.items()]
    return all(rules)
