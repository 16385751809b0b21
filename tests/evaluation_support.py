"""Tiny trained runs of every kind, and what their networks say by hand."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from search_support import Watcher
from support import TINY, prepare, restarts, tiny_recipe
from torch.nn import functional

from budgetnet.data import DataSet, split
from budgetnet.data.dataset import make_dataset
from budgetnet.engines.local import Batch, PlannedRun
from budgetnet.model.network import build
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import Epoch, RunRecord, RunResult
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
"""What runs are called here, and how they are trained."""
STOPPED = "stopped"


class Runs(Protocol):
    """Hands out trained runs by their names."""

    def __call__(self, *names: str, out: Path | None = None) -> list[RunRecord]: ...


class StopAtOnce:
    """A judge that stops a run behind its first epoch."""

    def stands_by(self, result: RunResult) -> bool:
        return True

    def resumed(self, curves: Sequence[Epoch]) -> str | None:
        return None

    def behind(self, epoch: Epoch) -> str | None:
        return "others were better"


def train_all(digits: DataSet, out: Path) -> None:
    """Trains all of them, 64 images each, judged on 40."""
    batch = Batch(digits, device=torch.device("cpu"), out=out, train_size=64, validation_size=40)
    for name, recipe in RECIPES.items():
        seed = int(name.removeprefix("good")) if name.startswith("good") else 0
        (record,) = batch.train([PlannedRun(spec=TINY, recipe=recipe, seed=seed)], Watcher())
        record.folder.rename(out / name)
    data = prepare(digits, RECIPE)
    train(TINY, data, RECIPE, seed=7, out=out, pruning=StopAtOnce()).folder.rename(out / STOPPED)


def copy_runs(source: Path, out: Path, *names: str) -> list[RunRecord]:
    """Some of the runs, in a folder of their own."""
    for name in names:
        shutil.copytree(source / name, out / name)
    return [RunFolder(out / name).load() for name in names]


def opened(digits: DataSet, folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The test images and labels, for an oracle, with the opening written down elsewhere."""
    return digits.test.open(reason="an oracle", by="a test", log=folder / "oracle.jsonl")


def other_digits(*, classes: int = 10, size: int = 8) -> DataSet:
    """Images like the digits, of the given number of classes and size, and none of them."""
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
    """Which training images a run was validated on."""
    recipe = record.identity.recipe
    parts = split(
        digits.train_labels,
        validation_fraction=recipe.validation_fraction,
        seed=recipe.split_seed,
        train_size=64,
        validation_size=40,
    )
    return parts.validation


def by_hand(record: RunRecord, images: npt.NDArray[np.uint8], *, views: Views = "none") -> npt.NDArray[np.float64]:
    """A run's probabilities (images, classes), in double precision."""
    facts = record.identity.data
    mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (facts.mean, facts.std))
    seen = views_by_hand((images.astype(np.float64) / 255 - mean) / std, views)
    network = build(record.identity.spec).double()
    network.load_state_dict(load_tensors(record.folder / "best.safetensors")[0])
    network.eval()
    with torch.no_grad():
        said = [functional.softmax(network(torch.from_numpy(each.copy())), dim=1).numpy() for each in seen]
    return np.asarray(np.mean(said, axis=0))


def views_by_hand(inputs: npt.NDArray[np.float64], views: Views) -> list[npt.NDArray[np.float64]]:
    """What a network sees of images (n, channels, height, width): as many copies of a view as it has shares."""
    if views == "none":
        return [inputs]
    mirrored = inputs[:, :, :, ::-1]
    if views == "flip":
        return [inputs, mirrored]
    down_right = np.pad(inputs, ((0, 0), (0, 0), (1, 0), (1, 0)), mode="reflect")[:, :, :-1, :-1]
    up_left = np.pad(inputs, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="reflect")[:, :, 1:, 1:]
    shifted = [down_right, down_right[:, :, :, ::-1], up_left, up_left[:, :, :, ::-1]]
    return [inputs, inputs, mirrored, mirrored, *shifted]
