"""One training run: its network, data and progress, the loop over epochs, and the files that it writes.

`budgetnet.training.trainer.train` creates it while holding the run folder's lock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from budgetnet.common.errors import InputError, RecordError
from budgetnet.common.seeding import derive_seed
from budgetnet.data.batches import BatchLoader
from budgetnet.data.filtered import FilteredBatchLoader
from budgetnet.data.resplit import ResplitImages
from budgetnet.data.training_data import TrainingData
from budgetnet.model.cost import cost_of
from budgetnet.model.network import ResNet
from budgetnet.runs.records import MAX_CONFUSION_CLASSES, Epoch, RunIdentity, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.runs.training_cost import training_flops
from budgetnet.training.callbacks import CallbackRunner
from budgetnet.training.checkpoint import load_tensors, save_tensors
from budgetnet.training.example_filter import ExampleSelection
from budgetnet.training.initialisation import initialise, whiten
from budgetnet.training.interrupts import Interrupts
from budgetnet.training.step import PRECISIONS, Execution, TrainingStep
from budgetnet.training.validation import Evaluation, Evaluator

_RETRAIN = "delete the run folder to train it again"


class _Progress(NamedTuple):
    """State of a run after an epoch, besides its tensors: with them, enough to resume."""

    epoch: int = 0
    best_epoch: int | None = None
    best_loss: float | None = None
    best_correct: int | None = None
    best_confusion: list[list[int]] | None = None
    """Confusion matrix of the validation images at the best epoch; None with too many classes to store."""
    patience_loss: float | None = None
    """Monitored loss at the last improvement that early stopping counted."""
    stale_epochs: int = 0
    """Epochs since that improvement."""


class PruningCallback(Protocol):
    """Decides after each epoch whether a run is stopped; its methods return the reason, or None to continue."""

    def confirms_stop(self, result: RunResult) -> bool:
        """Return whether this callback stopped the run in an earlier call, so that the stored result can be reused."""

    def check_resumed(self, curves: Sequence[Epoch]) -> str | None:
        """Check the epochs trained before the run was resumed; called once, before the next epoch."""

    def check_epoch(self, epoch: Epoch) -> str | None:
        """Check an epoch that just ended."""


class TrainingRun:
    """One training run and its state."""

    def __init__(self, identity: RunIdentity, data: TrainingData, folder: RunFolder, execution: Execution) -> None:
        self.identity, self.data, self.folder = identity, data, folder
        self.recipe = recipe = identity.recipe
        self.device = data.train.images.device
        precision = PRECISIONS[identity.precision]
        network = initialise(identity.spec, identity.seed, method=recipe.initialisation).to(self.device)
        whiten(network, data.train)
        self.network: ResNet = network.to(memory_format=torch.channels_last)
        train_images, validation_images = data.train, data.validation
        self.resplit: ResplitImages | None = None
        """Training and validation images, if they change with each epoch."""
        if recipe.validation_split == "each-epoch" or recipe.augmented_validation:
            self.resplit = ResplitImages(
                train_images,
                validation_images,
                recipe.augmentation,
                resplit_each_epoch=recipe.validation_split == "each-epoch",
                augmented=recipe.augmented_validation,
                seed=identity.seed,
            )
            train_images, validation_images = self.resplit.train, self.resplit.validation
        side = partial(recipe.side, full=identity.spec.input_shape[1]) if recipe.resizing else None
        options: dict[str, Any] = {"batch_size": recipe.batch_size, "seed": identity.seed, "side": side}
        loader = BatchLoader(train_images, recipe.augmentation, **options)
        self.selection: ExampleSelection | None = None
        """Images of each batch to train on, if the recipe filters examples."""
        self.filtered: FilteredBatchLoader | None = None
        if recipe.example_filter is not None:
            self.selection = ExampleSelection(
                identity,
                loader,
                out=folder.path.parent,
                network=initialise,
                rates=self._rates,
                begin=self._begin_images,
                execution=execution,
            )
            loader = self.filtered = FilteredBatchLoader(
                train_images, recipe.augmentation, example_filter=recipe.example_filter, **options
            )
        self.training_step = TrainingStep(self.network, loader, recipe, precision=precision, execution=execution)
        self.evaluated = self.training_step.average or self.network
        """Network that is validated and saved: the trained one, or the moving average of its weights."""
        self.evaluator = Evaluator(
            self.evaluated, validation_images, precision=precision, views=recipe.views, record=execution.record
        )
        self.progress = _Progress()
        self.curves: list[Epoch] = []

    def _begin_images(self, epoch: int) -> None:
        """Prepare the images of an epoch, if they change with each epoch."""
        if self.resplit is not None:
            self.resplit.begin(epoch)

    def release(self) -> None:
        """Free all memory on the device."""
        self.training_step.release()
        self.evaluator.release()
        if self.selection is not None:
            self.selection.release()
            self.selection = None

    def _rates(self, epoch: int) -> list[float]:
        """Return the learning rate of each step of an epoch."""
        recipe, steps = self.recipe, math.ceil(len(self.data.train) / self.recipe.batch_size)
        schedule, name = recipe.schedule, recipe.schedule.monitor.replace("-", "_")
        plateaus = schedule.plateaus(getattr(earlier, name) for earlier in self.curves[: epoch - 1])
        return [
            schedule.learning_rate(epoch - 1 + step / steps, initial=recipe.learning_rate, plateaus=plateaus)
            for step in range(len(self.training_step.loader.sizes))
        ]

    def train(self, callbacks: CallbackRunner, pruning: PruningCallback | None) -> RunResult:
        """Train until the last epoch, early stopping, pruning, or a loss that is not finite."""
        with Interrupts() as interrupts:
            return self._train(callbacks, pruning, interrupts)

    def _train(self, callbacks: CallbackRunner, pruning: PruningCallback | None, interrupts: Interrupts) -> RunResult:
        stopping = self.recipe.early_stopping
        pruned = pruning.check_resumed(self.curves) if pruning and self.curves else None
        while pruned is None and self.progress.epoch < self.recipe.epochs:
            if stopping and self.progress.stale_epochs >= stopping.patience:
                loss = stopping.monitor.replace("-", " ")
                return self._result("complete", f"early stopping: {loss} did not fall for {stopping.patience} epochs")
            epoch, validation = self._train_epoch(callbacks, interrupts)
            if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.validation_loss)):
                return self._result("diverged", f"the loss was not finite in epoch {epoch.epoch}")
            self._save(epoch, validation)
            callbacks.on_epoch_end(epoch)
            interrupts.check()
            pruned = pruning.check_epoch(epoch) if pruning else None
        if pruned is not None and self.progress.epoch < self.recipe.epochs:
            return self._result("stopped", pruned)
        epochs = self.recipe.epochs
        return self._result("complete", f"all {epochs} epochs" if epochs > 1 else "its only epoch")

    def _train_epoch(self, callbacks: CallbackRunner, interrupts: Interrupts) -> tuple[Epoch, Evaluation]:
        """Train on all training images once, then validate."""
        began, number, recipe = time.perf_counter(), self.progress.epoch + 1, self.recipe
        sizes, rates = self.training_step.loader.sizes, self._rates(number)
        self._begin_images(number)
        if self.selection is not None and self.filtered is not None:
            self.filtered.choose(self.selection.positions(number))
        # Random streams are seeded for each epoch, so that a resumed run samples the same values.
        torch.manual_seed(derive_seed(self.identity.seed, "dropout", number))
        self.training_step.begin(number, rates=rates)
        for step, size in enumerate(sizes, 1):
            self.training_step.train_batch(size)
            callbacks.on_step_end(number, step / len(sizes))
            interrupts.check()
        train_loss, train_accuracy = self.training_step.totals()
        validation = self.evaluator()
        return Epoch(
            epoch=number,
            cycle=len(recipe.schedule.cycle_ends(number - 1)) + 1,
            learning_rate=rates[-1],
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            validation_loss=validation.loss,
            validation_accuracy=validation.accuracy,
            seconds=time.perf_counter() - began,
        ), validation

    def _save(self, epoch: Epoch, validation: Evaluation) -> None:
        """Update the progress and write curves, checkpoint and best weights."""
        stopping, now = self.recipe.early_stopping, self.progress
        best = now.best_loss is None or validation.loss < now.best_loss
        min_delta = stopping.min_delta if stopping else 0.0
        monitored = epoch.train_loss if stopping and stopping.monitor == "training-loss" else validation.loss
        improved = now.patience_loss is None or monitored < now.patience_loss - min_delta
        self.progress = now._replace(
            epoch=epoch.epoch,
            best_epoch=epoch.epoch if best else now.best_epoch,
            best_loss=validation.loss if best else now.best_loss,
            best_correct=validation.correct if best else now.best_correct,
            best_confusion=self._confusion() if best else now.best_confusion,
            patience_loss=monitored if improved else now.patience_loss,
            stale_epochs=0 if improved else now.stale_epochs + 1,
        )
        self.curves.append(epoch)
        # Writing would make the folder anew, without the identity of the run.
        self.folder.require_begun()
        self.folder.write_curves(self.curves)
        self._write_checkpoint()
        # The checkpoint first: after a crash in between, the best weights can be restored from it.
        if best:
            self._write_best()

    def _confusion(self) -> list[list[int]] | None:
        classes = self.identity.spec.num_classes
        return self.evaluator.confusion(classes) if classes <= MAX_CONFUSION_CLASSES else None

    @property
    def confusion(self) -> list[list[int]] | None:
        """Confusion matrix of the validation images at the best epoch; None with too many classes to store."""
        return self.progress.best_confusion

    def _write_checkpoint(self) -> None:
        about = {"progress": self.progress._asdict(), "curves": [list(epoch) for epoch in self.curves]}
        save_tensors(self.folder.checkpoint, self.training_step.state(), about=about)

    def _write_best(self) -> None:
        about = {"epoch": self.progress.epoch, "run": self.identity.digest}
        save_tensors(self.folder.best, self.evaluated.state_dict(), about=about)

    def resume(self) -> None:
        """Restore the state of the checkpoint, if there is one."""
        if not self.folder.checkpoint.exists():
            return
        tensors, about = self._load(self.folder.checkpoint)
        try:
            self.progress = _Progress(**about["progress"])
            self.curves = [Epoch(*row) for row in about["curves"]]
            self.training_step.restore(tensors)
        except (KeyError, TypeError, RuntimeError):
            raise RecordError("checkpoint", str(self.folder.checkpoint), f"is not of this run; {_RETRAIN}") from None
        self.training_step.updates = self.progress.epoch * len(self.training_step.loader.sizes)
        # A crash can leave the curves one epoch ahead of the checkpoint, which also contains them.
        self.folder.write_curves(self.curves)
        best_written = self._load(self.folder.best)[1].get("epoch") if self.folder.best.exists() else None
        if best_written != self.progress.best_epoch:
            if self.progress.epoch != self.progress.best_epoch:
                rule = f"must hold epoch {self.progress.best_epoch}, and the checkpoint is of a later one; {_RETRAIN}"
                raise RecordError("best weights", str(self.folder.best), rule)
            self._write_best()

    def _load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            return load_tensors(path)
        except InputError as error:
            raise RecordError("checkpoint", str(path), f"is damaged: {error.rule}; {_RETRAIN}") from None

    def _result(self, status: str, reason: str) -> RunResult:
        progress, spec = self.progress, self.identity.spec
        costs: dict[str, Any] = cost_of(spec)._asdict()
        images = self.identity.data.train_images
        return RunResult(
            status=status,
            reason=reason,
            epochs=progress.epoch,
            cycles=len(self.recipe.schedule.cycle_ends(progress.epoch)),
            best_epoch=progress.best_epoch,
            validation_loss=progress.best_loss,
            validation_correct=progress.best_correct,
            validation_images=len(self.data.validation),
            seconds=sum(epoch.seconds for epoch in self.curves),
            train_flops=training_flops(spec, self.recipe, images=images, epochs=progress.epoch),
            **costs,
        )


def is_resumable(folder: RunFolder) -> bool:
    """Return whether checkpoint and best weights of a run folder belong together, as those of one moment do."""
    if not folder.checkpoint.exists():
        return True
    try:
        progress = load_tensors(folder.checkpoint)[1]["progress"]
        best = load_tensors(folder.best)[1].get("epoch") if folder.best.exists() else None
    except (InputError, KeyError):
        # Damaged, which the resumed run will say.
        return True
    return progress.get("best_epoch") in (best, progress.get("epoch"))
