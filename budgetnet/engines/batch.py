"""Runs on one data set: train them with an engine, and evaluate them on the test set.

Ablations, reproductions and the finals of a search use it. Training can be interrupted at any time and resumed, several
commands can share the runs, and the test set is opened only after all runs are complete.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch

from budgetnet.common.errors import BudgetnetError
from budgetnet.data import DataSet
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.choice import LOCAL, EngineChoice, make_engine
from budgetnet.engines.deaths import Deaths, Ending
from budgetnet.engines.jobs import Engine, Job, JobEnd, PlannedRun
from budgetnet.evaluation.inference import evaluate_on_test
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch, RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Callback, RunContext
from budgetnet.training.threads import FirstRun
from budgetnet.training.trainer import identify

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
"""Interval of looks at the other runs while this process waits for one that another is training."""


class RunList:
    """Dispatcher that hands out runs in order."""

    def __init__(self, runs: Sequence[PlannedRun], *, trained: int = 0) -> None:
        """Create the dispatcher.

        Args:
            runs: runs to train.
            trained: number of runs of the batch trained before.
        """
        self.busy: list[PlannedRun] = []
        """Runs that other processes are training."""
        self._left = deque(runs)
        self._current: dict[int, PlannedRun] = {}
        self._deaths: defaultdict[int, Deaths] = defaultdict(Deaths)
        self._trained = trained

    def next_job(self, worker: int) -> Job | None:
        """Return the next run, or None."""
        if not self._left:
            return None
        run = self._current[worker] = self._left.popleft()
        return Job(run, RunContext(worker, self._trained))

    def report(self, worker: int, epoch: Epoch) -> bool:  # noqa: ARG002 - runs of a batch are not pruned
        """Return False: no run is pruned."""
        return False

    def ended(self, worker: int, end: JobEnd) -> None:
        """Receive the end of a run.

        Raises:
            BudgetnetError: the run failed or its folder is damaged.
        """
        run = self._current.pop(worker)
        if end.outcome == "busy":
            self.busy.append(run)
        elif end.outcome == "trained":
            self._trained += 1
        elif end.outcome != "out of memory":
            raise end.as_error()

    def interrupted(self, worker: int, *, death: Ending | None, epochs: int | None) -> None:
        """Put the run back in the first place.

        Raises:
            BudgetnetError: the run has killed its worker again and again.
        """
        run = self._current.pop(worker)
        self._left.appendleft(run)
        if death is None:
            return
        before = self._deaths[id(run)]
        deaths = self._deaths[id(run)] = before.with_one(before.epochs if epochs is None else epochs)
        label = f"{run.spec.label}, seed {run.seed}"
        if deaths.too_many:
            raise BudgetnetError(f"{label}: {deaths.too_many}{death.last}")
        _log.warning("worker %d %s while it trained %s; the run %s", worker, death, label, deaths.resumed)

    def tick(self) -> None:
        """Do nothing: nothing is due."""


def train_runs(runs: Sequence[PlannedRun], engine: Engine, callback: Callback, *, trained: int = 0) -> list[PlannedRun]:
    """Train runs, and return those that another process is training.

    Args:
        runs: runs that are not complete.
        engine: trains them.
        callback: receives the events of the runs.
        trained: number of runs trained before, for the callback.

    Raises:
        RecordError: a run folder is damaged.
        BudgetnetError: a run failed.
    """
    work = RunList(runs, trained=trained)
    if runs:
        engine.run(work, callback)
    return work.busy


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
        engine: EngineChoice = LOCAL,
    ) -> None:
        """Create the batch.

        Args:
            dataset: data set, its test set unopened.
            device: device for training and evaluation.
            out: folder of run folders.
            train_size: number of training images; default: all of the split.
            validation_size: number of validation images; default: all of the split.
            engine: engine that trains the runs.
        """
        self.dataset, self.device, self.out, self._engine = dataset, device, out, engine
        self._sizes = {"train_size": train_size, "validation_size": validation_size}
        self._prepared: dict[tuple[float, int], TrainingData] = {}
        self._complete: dict[tuple[str, str, int], RunRecord] = {}

    def data(self, recipe: Recipe) -> TrainingData:
        """Return training and validation images of a recipe's split, where the engine needs them; cached by split.

        Raises:
            DataError: a size is larger than the split, or too small for the number of classes.
        """
        key = _split(recipe)
        if key not in self._prepared:
            where = self._engine.place(self.device)
            self._prepared[key] = TrainingData.prepare(self.dataset, recipe, device=where, **self._sizes)
        return self._prepared[key]

    def folder(self, run: PlannedRun) -> RunFolder:
        """Return the folder of a run, which may not exist yet."""
        data = self.data(run.recipe)
        return RunFolder.of(identify(run.spec, data, run.recipe, seed=run.seed, device=self.device), self.out)

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
        trained = len(runs) - len(remaining)
        while remaining:
            busy: list[PlannedRun] = []
            for _, same_split in groupby(remaining, key=lambda run: _split(run.recipe)):
                part = list(same_split)
                engine = make_engine(self._engine, self.data(part[0].recipe), out=self.out, device=self.device)
                taken = train_runs(part, engine, callback, trained=trained)
                trained += len(part) - len(taken)
                busy += taken
            self._wait_for_one([self.folder(run) for run in busy])
            remaining = [run for run in busy if self.record(run) is None]
            trained += len(busy) - len(remaining)
        records = []
        for run in runs:
            record = self.record(run)
            if record is None:
                raise BudgetnetError(f"{self.folder(run).path.name}: the network is too large for the device's memory")
            records.append(record)
        return records

    def _wait_for_one(self, folders: Sequence[RunFolder]) -> None:
        """Wait until no other process is training one of the runs any more; the engine's workers have ended."""
        while folders and not any(folder.is_free() for folder in folders):
            folders[0].is_free(within=_LOOK_SECONDS)

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


def _split(recipe: Recipe) -> tuple[float, int]:
    """Return what determines the split of the training images."""
    return recipe.validation_fraction, recipe.split_seed
