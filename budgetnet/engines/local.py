"""Local engine: trains a list of runs on one data set, one after the other, and evaluates them on the test set.

Ablations, reproductions and the finals of a search use it. Training can be interrupted at any time and resumed, several
processes can share the runs, and the test set is opened only after all runs are complete.
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
from budgetnet.evaluation.inference import evaluate_on_test
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Callback, RunContext
from budgetnet.training.out_of_memory import retry_out_of_memory
from budgetnet.training.threads import FirstRun
from budgetnet.training.trainer import identify, train

_POLL_SECONDS = 2.0
"""Interval of checks for runs that other processes are training."""


class PlannedRun(Document):
    """A run to train: network, recipe and seed."""

    spec: ModelSpec
    """Architecture."""
    recipe: Recipe
    """Training recipe."""
    seed: int
    """Seed of initialisation, order of the images and augmentation."""


def train_runs(
    runs: Sequence[PlannedRun], data: TrainingData, *, out: Path, callback: Callback, worker: int = 0, trained: int = 0
) -> list[PlannedRun]:
    """Train the runs that are not complete, except those that other processes are training.

    Args:
        runs: runs to train.
        data: training and validation images, on the training device.
        out: folder of run folders.
        callback: receives the events of the runs.
        worker: number of the worker.
        trained: number of runs trained before, for the callback.

    Returns:
        Runs that another process is training.
    """
    busy = []
    for run in runs:
        if is_complete(RunFolder.of(identify(run.spec, data, run.recipe, seed=run.seed), out)):
            continue
        try:
            retry_out_of_memory(_attempt(run, data, out, callback, RunContext(worker, trained)))
        except BusyError:
            busy.append(run)
    return busy


def _attempt(
    run: PlannedRun, data: TrainingData, out: Path, callback: Callback, context: RunContext
) -> Callable[[Any], RunRecord]:
    return lambda execution: train(
        run.spec,
        data,
        run.recipe,
        seed=run.seed,
        out=out,
        execution=execution,
        callback=callback,
        context=context,
    )


def is_complete(folder: RunFolder) -> bool:
    """Return whether a run is finished and was not stopped by a search.

    Raises:
        RecordError: the folder is damaged.
    """
    return folder.finished and folder.load().result.status != "stopped"


def first_run(batch: Batch, runs: Sequence[PlannedRun]) -> FirstRun | None:
    """Return the first run that is not complete, to measure its steps; None if there is none or on other devices."""
    for run in runs if batch.device.type == "cpu" else ():
        if batch.record(run) is None:
            return FirstRun(run.spec, run.recipe, batch.data(run.recipe), batch.folder(run))
    return None


class Batch:
    """Runs on one data set; their recipes may split it differently."""

    def __init__(
        self,
        dataset: DataSet,
        *,
        device: torch.device,
        out: Path,
        train_size: int | None = None,
        validation_size: int | None = None,
    ) -> None:
        """Create the batch.

        Args:
            dataset: data set, its test set unopened.
            device: device for training and evaluation.
            out: folder of run folders.
            train_size: number of training images; default: all of the split.
            validation_size: number of validation images; default: all of the split.
        """
        self.dataset, self.device, self.out = dataset, device, out
        self._sizes = {"train_size": train_size, "validation_size": validation_size}
        self._prepared: dict[tuple[float, int], TrainingData] = {}
        self._complete: dict[tuple[str, str, int], RunRecord] = {}

    def data(self, recipe: Recipe) -> TrainingData:
        """Return training and validation images of a recipe's split, on the device; cached for each split.

        Raises:
            DataError: a size is larger than the split, or too small for the number of classes.
        """
        key = recipe.validation_fraction, recipe.split_seed
        if key not in self._prepared:
            self._prepared[key] = TrainingData.prepare(self.dataset, recipe, device=self.device, **self._sizes)
        return self._prepared[key]

    def folder(self, run: PlannedRun) -> RunFolder:
        """Return the folder of a run, which may not exist yet."""
        return RunFolder.of(identify(run.spec, self.data(run.recipe), run.recipe, seed=run.seed), self.out)

    def record(self, run: PlannedRun) -> RunRecord | None:
        """Return a run's record, or None if the run is not complete; records are cached.

        Raises:
            RecordError: the run folder is damaged.
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
        """Train the runs that are not complete; after an interruption, the same call resumes.

        Several processes may train the same runs: each skips those that another is training, and waits for them at the
        end.

        Args:
            runs: runs to train.
            callback: receives the events of the runs.

        Returns:
            Records in the order of the runs, including diverged ones.

        Raises:
            RecordError: a run folder is damaged.
            BudgetnetError: a network is too large for the device even with half batches.
        """
        remaining = [run for run in runs if self.record(run) is None]
        while remaining:
            busy: list[PlannedRun] = []
            for index, run in enumerate(remaining):
                trained = len(runs) - len(remaining) + index - len(busy)
                busy += train_runs([run], self.data(run.recipe), out=self.out, callback=callback, trained=trained)
            if len(busy) == len(remaining):
                time.sleep(_POLL_SECONDS)
            remaining = busy
        records = []
        for run in runs:
            record = self.record(run)
            if record is None:
                raise BudgetnetError(f"{self.folder(run).path.name}: the network is too large for the device's memory")
            records.append(record)
        return records

    def evaluate_on_test(self, records: Sequence[RunRecord], *, by: str, reason: str) -> list[RunRecord]:
        """Evaluate runs on the test set, opened once for those that have no test result yet.

        Args:
            records: runs of this batch; only complete ones are evaluated.
            by: command or study that opens the test set, for the log.
            reason: reason for the opening, for the log.

        Returns:
            The records with their test results.

        Raises:
            DataError: the opening cannot be logged.
            RecordError: a run's weights are damaged.
        """
        complete = [record for record in records if record.result.status == "complete"]
        evaluate_on_test(complete, self.dataset, by=by, reason=reason, device=self.device, out=self.out)
        return [RunFolder(record.folder).load() for record in records]
