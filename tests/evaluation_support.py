"""Tiny trained runs of every kind, and reference predictions in plain code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from search_support import Watcher
from support import TINY, StopAfter, prepare, restarts, tiny_recipe
from torch.nn import functional

from budgetnet.data import DataSet, split
from budgetnet.data.dataset import make_dataset
from budgetnet.engines.batch import Batch
from budgetnet.engines.jobs import PlannedRun
from budgetnet.model.network import build
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.training.checkpoint import load_tensors
from budgetnet.training.trainer import train

RECIPE = tiny_recipe(learning_rate=0.1, test_time_flip=True)
RECIPES = {
    **{f"good{seed}": RECIPE for seed in range(3)},
    "otherwise-split": RECIPE.model_copy(update={"split_seed": 1}),
    "leaking": RECIPE.model_copy(update={"validation_split": "each-epoch"}),
    "diverged": tiny_recipe(learning_rate=1e30, schedule=restarts(2)),
}
"""Recipes of the runs by name."""
STOPPED = "stopped"


class Runs(Protocol):
    """Returns trained runs by name."""

    def __call__(self, *names: str, out: Path | None = None) -> list[RunRecord]: ...


def train_all(digits: DataSet, out: Path) -> None:
    """Train all runs, with 64 training and 40 validation images."""
    batch = Batch(digits, device=torch.device("cpu"), out=out, train_size=64, validation_size=40)
    for name, recipe in RECIPES.items():
        seed = int(name.removeprefix("good")) if name.startswith("good") else 0
        (record,) = batch.train([PlannedRun(spec=TINY, recipe=recipe, seed=seed)], Watcher())
        record.folder.rename(out / name)
    data = prepare(digits, RECIPE)
    train(TINY, data, RECIPE, seed=7, out=out, pruning=StopAfter(1)).folder.rename(out / STOPPED)


def copy_runs(source: Path, out: Path, *names: str) -> list[RunRecord]:
    """Copy runs to another folder."""
    for name in names:
        shutil.copytree(source / name, out / name)
    return [RunFolder(out / name).load() for name in names]


def open_test_set(digits: DataSet, folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return test images and labels for an oracle; the opening is logged to a separate file."""
    return digits.test.open(reason="an oracle", by="a test", log=folder / "oracle.jsonl")


def other_digits(*, classes: int = 10, size: int = 8) -> DataSet:
    """Return random images shaped like the digits, with the given number of classes and size."""
    generator = np.random.default_rng(5)

    def part(count: int) -> npt.NDArray[np.uint8]:
        return generator.integers(0, 120, (count, size, size), dtype=np.uint8)

    return make_dataset(
        name="others",
        train_images=part(40),
        train_labels=np.arange(40) % classes,
        test_images=part(50),
        test_labels=np.arange(50) % classes,
        class_names=[f"sign {number}" for number in range(classes)],
        provenance="made for a test",
    )


def validation_rows(digits: DataSet, record: RunRecord) -> npt.NDArray[np.int64]:
    """Return the indices of the training images that a run was validated on."""
    recipe = record.identity.recipe
    parts = split(
        digits.train_labels,
        validation_fraction=recipe.validation_fraction,
        seed=recipe.split_seed,
        train_size=64,
        validation_size=40,
    )
    return parts.validation


def reference_probabilities(
    record: RunRecord, images: npt.NDArray[np.uint8], *, views: Views = "none"
) -> npt.NDArray[np.float64]:
    """Return a run's probabilities (images, classes), computed in float64."""
    data = record.identity.data
    mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (data.mean, data.std))
    inputs = reference_views((images.astype(np.float64) / 255 - mean) / std, views)
    network = build(record.identity.spec).double()
    network.load_state_dict(load_tensors(record.folder / "best.safetensors")[0])
    network.eval()
    with torch.no_grad():
        probabilities = [functional.softmax(network(torch.from_numpy(each.copy())), dim=1).numpy() for each in inputs]
    return np.asarray(np.mean(probabilities, axis=0))


def reference_views(inputs: npt.NDArray[np.float64], views: Views) -> list[npt.NDArray[np.float64]]:
    """Return the views of images (n, channels, height, width), each as often as its weight."""
    if views == "none":
        return [inputs]
    mirrored = inputs[:, :, :, ::-1]
    if views == "flip":
        return [inputs, mirrored]
    down_right = np.pad(inputs, ((0, 0), (0, 0), (1, 0), (1, 0)), mode="reflect")[:, :, :-1, :-1]
    up_left = np.pad(inputs, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="reflect")[:, :, 1:, 1:]
    shifted = [down_right, down_right[:, :, :, ::-1], up_left, up_left[:, :, :, ::-1]]
    return [inputs, inputs, mirrored, mirrored, *shifted]
