"""The moving parts of one training run: what it trains, how far it has come, and what it writes.

`budgetnet.training.trainer.train` makes one, holds the run folder's lock and hands it a callback.
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
from budgetnet.data.batches import Feed
from budgetnet.data.filtered import FilteredFeed
from budgetnet.data.resplit import MovingSplit
from budgetnet.data.training_data import TrainingData
from budgetnet.model.cost import cost_of
from budgetnet.model.network import ResNet
from budgetnet.runs.records import Epoch, RunIdentity, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.runs.training_cost import training_flops
from budgetnet.training.callbacks import Teller
from budgetnet.training.checkpoint import load_tensors, save_tensors
from budgetnet.training.example_filter import Choices
from budgetnet.training.initialisation import initialise, whiten
from budgetnet.training.step import PRECISIONS, Execution, Learner
from budgetnet.training.validation import Evaluation, Evaluator

_ANEW = "delete the run folder to train it anew"


class _Progress(NamedTuple):
    """What is known of a run after an epoch, besides its weights: enough, with them, to continue."""

    epoch: int = 0
    best_epoch: int | None = None
    best_loss: float | None = None
    best_correct: int | None = None
    patience_loss: float | None = None
    """The monitored loss from which early stopping counts improvement."""
    stale_epochs: int = 0
    """Epochs since that improvement."""


class Judge(Protocol):
    """Decides behind each epoch whether a run goes on; what it gives is the reason not to."""

    def stands_by(self, result: RunResult) -> bool:
        """Whether the record of a run that was stopped tells of this judge's own word, and so is an answer."""

    def resumed(self, curves: Sequence[Epoch]) -> str | None:
        """Hears of the epochs of an earlier start, before the first one of this start."""

    def behind(self, epoch: Epoch) -> str | None:
        """Hears of an epoch that has just ended."""


class TrainingRun:
    """The moving parts of one run."""

    def __init__(self, identity: RunIdentity, data: TrainingData, folder: RunFolder, execution: Execution) -> None:
        self.identity, self.data, self.folder = identity, data, folder
        self.recipe = recipe = identity.recipe
        self.device = data.train.images.device
        precision = PRECISIONS[identity.precision]
        network = initialise(identity.spec, identity.seed, method=recipe.initialisation).to(self.device)
        whiten(network, data.train)
        self.network: ResNet = network.to(memory_format=torch.channels_last)
        learned, held_out = data.train, data.validation
        self.moving: MovingSplit | None = None
        """Both parts of the split where they are made anew for each epoch."""
        if recipe.validation_split == "each-epoch" or recipe.augmented_validation:
            self.moving = MovingSplit(
                learned,
                held_out,
                recipe.augmentation,
                redrawn=recipe.validation_split == "each-epoch",
                augmented=recipe.augmented_validation,
                seed=identity.seed,
            )
            learned, held_out = self.moving.train, self.moving.validation
        side = partial(recipe.side, full=identity.spec.input_shape[1]) if recipe.resizing else None
        given: dict[str, Any] = {"batch_size": recipe.batch_size, "seed": identity.seed, "side": side}
        feed = Feed(learned, recipe.augmentation, **given)
        self.choices: Choices | None = None
        """Which images of each batch are trained on, where not all are."""
        self.filtered: FilteredFeed | None = None
        if recipe.example_filter is not None:
            self.choices = Choices(
                identity,
                feed,
                out=folder.path.parent,
                network=initialise,
                rates=self._rates,
                begin=self._begin_images,
                execution=execution,
            )
            feed = self.filtered = FilteredFeed(
                learned, recipe.augmentation, example_filter=recipe.example_filter, **given
            )
        self.learner = Learner(self.network, feed, recipe, precision=precision, execution=execution)
        self.judged = self.learner.average or self.network
        """What is validated and kept: the network, or the moving average of its weights."""
        self.evaluator = Evaluator(
            self.judged, held_out, precision=precision, views=recipe.views, record=execution.record
        )
        self.progress = _Progress()
        self.curves: list[Epoch] = []

    def _begin_images(self, epoch: int) -> None:
        """Prepares the images of an epoch, where they change."""
        if self.moving is not None:
            self.moving.begin(epoch)

    def release(self) -> None:
        """Lets go of all memory on the device."""
        self.learner.release()
        self.evaluator.release()
        if self.choices is not None:
            self.choices.release()
            self.choices = None

    def _rates(self, epoch: int) -> list[float]:
        """The learning rate of each step of an epoch."""
        recipe, steps = self.recipe, math.ceil(len(self.data.train) / self.recipe.batch_size)
        return [
            recipe.schedule.learning_rate(epoch - 1 + step / steps, initial=recipe.learning_rate)
            for step in range(len(self.learner.feed.sizes))
        ]

    def to_the_end(self, told: Teller, judge: Judge | None) -> RunResult:
        """Trains to the recipe's last epoch, early stopping, the judge's word, or a loss that is no finite number."""
        stopping = self.recipe.early_stopping
        verdict = judge.resumed(self.curves) if judge and self.curves else None
        while verdict is None and self.progress.epoch < self.recipe.epochs:
            if stopping and self.progress.stale_epochs >= stopping.patience:
                loss = stopping.monitor.replace("-", " ")
                return self._result("complete", f"early stopping: {loss} did not fall for {stopping.patience} epochs")
            epoch, validation = self._epoch(told)
            if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.validation_loss)):
                return self._result("diverged", f"the loss was no finite number in epoch {epoch.epoch}")
            self._keep(epoch, validation)
            told.epoch_ended(epoch)
            verdict = judge.behind(epoch) if judge else None
        if verdict is not None and self.progress.epoch < self.recipe.epochs:
            return self._result("stopped", verdict)
        return self._result("complete", f"all {self.recipe.epochs} epochs")

    def _epoch(self, told: Teller) -> tuple[Epoch, Evaluation]:
        """One pass over the training images, then validation."""
        began, number, recipe = time.perf_counter(), self.progress.epoch + 1, self.recipe
        sizes, rates = self.learner.feed.sizes, self._rates(number)
        self._begin_images(number)
        if self.choices is not None and self.filtered is not None:
            self.filtered.choose(self.choices.places(number))
        # Each epoch has its own streams, so that a resumed run draws what an uninterrupted one would have drawn.
        torch.manual_seed(derive_seed(self.identity.seed, "dropout", number))
        self.learner.begin(number, rates=rates)
        for step, size in enumerate(sizes, 1):
            self.learner.learn(size)
            told.stepped(number, step / len(sizes))
        train_loss, train_accuracy = self.learner.totals()
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

    def _keep(self, epoch: Epoch, validation: Evaluation) -> None:
        """Takes an epoch into the books and onto the disk."""
        stopping, now = self.recipe.early_stopping, self.progress
        best = now.best_loss is None or validation.loss < now.best_loss
        min_delta = stopping.min_delta if stopping else 0.0
        monitored = epoch.train_loss if stopping and stopping.monitor == "training-loss" else validation.loss
        fallen = now.patience_loss is None or monitored < now.patience_loss - min_delta
        self.progress = now._replace(
            epoch=epoch.epoch,
            best_epoch=epoch.epoch if best else now.best_epoch,
            best_loss=validation.loss if best else now.best_loss,
            best_correct=validation.correct if best else now.best_correct,
            patience_loss=monitored if fallen else now.patience_loss,
            stale_epochs=0 if fallen else now.stale_epochs + 1,
        )
        self.curves.append(epoch)
        self.folder.write_curves(self.curves)
        self._write_checkpoint()
        # The checkpoint comes first: if the best weights are lost to a crash in between, it still holds them.
        if best:
            self._write_best()

    def _write_checkpoint(self) -> None:
        about = {"progress": self.progress._asdict(), "curves": [list(epoch) for epoch in self.curves]}
        save_tensors(self.folder.checkpoint, self.learner.state(), about=about)

    def _write_best(self) -> None:
        save_tensors(self.folder.best, self.judged.state_dict(), about=self._about_best())

    def _about_best(self) -> dict[str, Any]:
        """What tells these weights from those of another run or epoch."""
        return {"epoch": self.progress.epoch, "run": self.identity.digest}

    def resume(self) -> None:
        """Restore the state after the last epoch that was written, if there is one."""
        if not self.folder.checkpoint.exists():
            return
        tensors, about = self._load(self.folder.checkpoint)
        try:
            self.progress = _Progress(**about["progress"])
            self.curves = [Epoch(*row) for row in about["curves"]]
            self.learner.restore(tensors)
        except (KeyError, TypeError, RuntimeError):
            raise RecordError("checkpoint", str(self.folder.checkpoint), f"is not of this run; {_ANEW}") from None
        self.learner.updates = self.progress.epoch * len(self.learner.feed.sizes)
        # The checkpoint knows the curves as well, so that no crash can leave the two apart.
        self.folder.write_curves(self.curves)
        best_written = self._load(self.folder.best)[1].get("epoch") if self.folder.best.exists() else None
        if best_written != self.progress.best_epoch:
            if self.progress.epoch != self.progress.best_epoch:
                rule = f"must hold epoch {self.progress.best_epoch}, which the checkpoint has left behind; {_ANEW}"
                raise RecordError("best weights", str(self.folder.best), rule)
            self._write_best()

    def _load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            return load_tensors(path)
        except InputError as error:
            raise RecordError("checkpoint", str(path), f"is damaged: {error.rule}; {_ANEW}") from None

    def _result(self, status: str, reason: str) -> RunResult:
        progress, spec = self.progress, self.identity.spec
        facts: dict[str, Any] = cost_of(spec)._asdict()
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
            **facts,
        )
