"""Judging trained networks: on any images, and on the test set, whose opening is written down first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from budgetnet.common.errors import DataError, InputError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.on_device import ResidentImages, resident
from budgetnet.runs.metrics import Scores
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import RunRecord, TestResult
from budgetnet.runs.store import OPENINGS, RunFolder
from budgetnet.training.checkpoint import load_tensors
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import PRECISIONS
from budgetnet.training.validation import Evaluator


def trained_network(record: RunRecord, device: torch.device) -> nn.Module:
    """The network of a finished run with its best weights.

    Raises:
        RecordError: the weights are damaged, or not those of the run's network.
    """
    path = RunFolder(record.folder).best
    network = initialise(record.identity.spec, record.identity.seed).to(device)
    try:
        tensors, about = load_tensors(path)
        ours = {"epoch": record.result.best_epoch, "run": record.identity.digest}
        if {**ours, **about} != ours:
            raise InputError("about", about, "must be of this run's best epoch")
        network.load_state_dict(tensors)
    except (InputError, RuntimeError):
        rule = "is damaged: not the weights of this run's network; delete the run folder to train it anew"
        raise RecordError("best weights", str(path), rule) from None
    return network


def score(record: RunRecord, images: ResidentImages, *, views: Views | None = None) -> Scores:
    """What a run's network says of images, in the precision that it was trained in.

    Args:
        record: the run.
        images: on the device to judge on.
        views: by which views of each image it is judged, probabilities averaged; those of the recipe if omitted.

    Raises:
        RecordError: the weights are damaged.
    """
    identity = record.identity
    evaluator = Evaluator(
        trained_network(record, images.images.device),
        images,
        precision=PRECISIONS[identity.precision],
        views=identity.recipe.views if views is None else views,
    )
    # In double precision, so that no two classes that differ come out alike; not on the device, which may have none.
    probabilities = np.exp(evaluator.log_probabilities().cpu().double().numpy())
    return Scores(probabilities=probabilities, labels=images.labels.cpu().numpy())


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One process at a time; where none can be kept out, nobody comes in.

    Raises:
        DataError: the folder cannot be written to.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(out / f".{OPENINGS}.lock"))
        except OSError as error:
            rule = f"cannot be written ({error.strerror or error}), so the test set stays sealed"
            raise DataError("log", str(out / OPENINGS), rule) from None
        yield


def judge(
    records: Sequence[RunRecord], dataset: DataSet, *, by: str, reason: str, device: torch.device, out: Path
) -> None:
    """Judges runs on the test set, opened once for those that were not judged before.

    What each network says of each image is kept beside its result, so that no later question needs another opening.

    Args:
        records: the runs, complete.
        dataset: the data set that they were trained on.
        by: who opens the test set.
        reason: why.
        device: where to judge.
        out: folder of run folders, in which the opening is written down.

    Raises:
        DataError: the opening cannot be written down.
        RecordError: a run's weights are damaged.
    """
    if all(record.test is not None for record in records):
        return
    # One process at a time: another that trained some of the runs would open the test set for them once more.
    with _alone(out):
        waiting = [record for record in records if RunFolder(record.folder).load().test is None]
        if not waiting:
            return
        # Before the test set is opened, which it must not be in vain.
        for record in waiting:
            trained_network(record, torch.device("cpu"))
        names = [record.folder.name for record in waiting]
        images, labels = dataset.test.open(reason=reason, by=by, log=out / OPENINGS, runs=names)
        test = resident(images, labels, device=device, mean=dataset.mean, std=dataset.std)
        for record in waiting:
            scores = score(record, test)
            folder = RunFolder(record.folder)
            # The result comes last: where it stands, the scores do as well.
            folder.write_scores(scores)
            result = TestResult(loss=scores.loss, correct=scores.correct, images=scores.images, reason=reason)
            folder.write_test(result)
