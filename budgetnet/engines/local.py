"""Several runs on one data set: trained in turn, shared with whoever trains the same, and judged when all stand.

What an ablation, a reproduction and the finals of a search have in common: a list of runs, each with its folder, that
can be broken off at any instant and gone on with, and a test set that is opened when all of them stand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from budgetnet.common.documents import Document
from budgetnet.common.errors import BudgetnetError, BusyError
from budgetnet.data import DataSet
from budgetnet.data.training_data import TrainingData
from budgetnet.evaluation.inference import judge
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Callback, Occasion
from budgetnet.training.out_of_memory import with_memory
from budgetnet.training.threads import FirstRun
from budgetnet.training.trainer import identify, train

_LOOK_AGAIN = 2.0
"""Seconds between two looks at runs that another process is training."""


class PlannedRun(Document):
    """One training of one network."""

    spec: ModelSpec
    """The network."""
    recipe: Recipe
    """How it is trained."""
    seed: int
    """Of initialisation, order and augmentation."""


def train_runs(
    runs: Sequence[PlannedRun], data: TrainingData, *, out: Path, callback: Callback, worker: int = 0, trained: int = 0
) -> list[PlannedRun]:
    """Trains what is not trained yet, and leaves to other processes what they are at.

    Args:
        runs: the trainings.
        data: training and validation images, on the device to train on.
        out: folder of run folders.
        callback: is told of the runs.
        worker: number of the worker.
        trained: how many runs are trained already, for the callback.

    Returns:
        Runs that another process was training.
    """
    left = []
    for run in runs:
        if is_complete(RunFolder.of(identify(run.spec, data, run.recipe, seed=run.seed), out)):
            continue
        try:
            with_memory(_attempt(run, data, out, callback, Occasion(worker, trained)))
        except BusyError:
            left.append(run)
    return left


def _attempt(
    run: PlannedRun, data: TrainingData, out: Path, callback: Callback, occasion: Occasion
) -> Callable[[Any], RunRecord]:
    return lambda execution: train(
        run.spec,
        data,
        run.recipe,
        seed=run.seed,
        out=out,
        execution=execution,
        callback=callback,
        occasion=occasion,
    )


def is_complete(folder: RunFolder) -> bool:
    """Whether a run has come to its own end: one that a search stopped before its time has not.

    Raises:
        RecordError: the folder is damaged.
    """
    return folder.finished and folder.load().result.status != "stopped"


def first_run(batch: Batch, runs: Sequence[PlannedRun]) -> FirstRun | None:
    """Return the first run that is not complete, to measure steps of; None if there is none, or not on the CPU."""
    for run in runs if batch.device.type == "cpu" else ():
        if batch.record(run) is None:
            return FirstRun(run.spec, run.recipe, batch.data(run.recipe), batch.folder(run))
    return None


class Batch:
    """Runs on one data set; recipes may split it in different ways."""

    def __init__(
        self,
        dataset: DataSet,
        *,
        device: torch.device,
        out: Path,
        train_size: int | None = None,
        validation_size: int | None = None,
    ) -> None:
        """Nothing is trained yet.

        Args:
            dataset: the data set, its test set under seal.
            device: where to train and judge.
            out: folder of run folders.
            train_size: images to learn from; all that are not held out if left out.
            validation_size: images to be judged on; all that are held out if left out.
        """
        self.dataset, self.device, self.out = dataset, device, out
        self._sizes = {"train_size": train_size, "validation_size": validation_size}
        self._prepared: dict[tuple[float, int], TrainingData] = {}
        self._complete: dict[tuple[str, str, int], RunRecord] = {}

    def data(self, recipe: Recipe) -> TrainingData:
        """Training and validation images as a recipe splits them, on the device; recipes that split alike share them.

        Raises:
            DataError: a size is larger than what there is, or too small for the number of classes.
        """
        key = recipe.validation_fraction, recipe.split_seed
        if key not in self._prepared:
            self._prepared[key] = TrainingData.prepare(self.dataset, recipe, device=self.device, **self._sizes)
        return self._prepared[key]

    def folder(self, run: PlannedRun) -> RunFolder:
        """Where a run lies, whether it exists yet or not."""
        return RunFolder.of(identify(run.spec, self.data(run.recipe), run.recipe, seed=run.seed), self.out)

    def record(self, run: PlannedRun) -> RunRecord | None:
        """Return a run's record, or None while the run is not complete; a complete run is read from disk only once.

        Raises:
            RecordError: the run's folder is damaged.
        """
        key = run.spec.digest, run.recipe.digest, run.seed
        if key not in self._complete:
            folder = self.folder(run)
            record = folder.load() if folder.finished else None
            if record is None or record.result.status == "stopped":
                return None
            self._complete[key] = record
        return self._complete[key]

    def train(self, runs: Sequence[PlannedRun], callback: Callback) -> list[RunRecord]:
        """Trains what is not trained yet; the same call goes on where it was broken off.

        Several processes may do so at once: each takes what nobody is training, and waits for the others at the end.

        Args:
            runs: the trainings.
            callback: is told of the runs.

        Returns:
            Their records, in the order of the runs; of runs that diverged, too.

        Raises:
            RecordError: a run's folder is damaged.
            BudgetnetError: a network is too large for the device even with half batches.
        """
        left = [run for run in runs if self.record(run) is None]
        while left:
            busy: list[PlannedRun] = []
            for place, run in enumerate(left):
                trained = len(runs) - len(left) + place - len(busy)
                busy += train_runs([run], self.data(run.recipe), out=self.out, callback=callback, trained=trained)
            if len(busy) == len(left):
                time.sleep(_LOOK_AGAIN)
            left = busy
        records = []
        for run in runs:
            record = self.record(run)
            if record is None:
                raise BudgetnetError(f"{self.folder(run).path.name}: the network is too large for the device's memory")
            records.append(record)
        return records

    def judge(self, records: Sequence[RunRecord], *, by: str, reason: str) -> list[RunRecord]:
        """Opens the test set once for runs that stand; those judged before stay as they are.

        Args:
            records: runs of this batch; those that came to no result are left out.
            by: who opens it.
            reason: why.

        Returns:
            The records with what their networks did on the test set.

        Raises:
            DataError: the opening cannot be written down.
            RecordError: a run's weights are damaged.
        """
        complete = [record for record in records if record.result.status == "complete"]
        judge(complete, self.dataset, by=by, reason=reason, device=self.device, out=self.out)
        return [RunFolder(record.folder).load() for record in records]
