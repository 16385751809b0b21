"""Inference with trained networks, on any images, and their evaluation on the test set, whose opening is logged."""

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
from budgetnet.data.on_device import OnDeviceImages, to_device
from budgetnet.runs.metrics import Scores
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import MAX_REASON, RunRecord, TestResult
from budgetnet.runs.store import TEST_OPENINGS_FILE, RunFolder
from budgetnet.training.checkpoint import load_tensors
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import PRECISIONS
from budgetnet.training.validation import Evaluator


def trained_network(record: RunRecord, device: torch.device) -> nn.Module:
    """Return the network of a finished run with its best weights.

    Raises:
        RecordError: the weights are damaged or belong to another run.
    """
    path = RunFolder(record.folder).best
    network = initialise(record.identity.spec, record.identity.seed).to(device)
    try:
        tensors, about = load_tensors(path)
        expected = {"epoch": record.result.best_epoch, "run": record.identity.digest}
        if {**expected, **about} != expected:
            raise InputError("about", about, "must be of this run's best epoch")
        network.load_state_dict(tensors)
    except (InputError, RuntimeError):
        rule = "is damaged: not the weights of this run's network; delete the run folder to train it again"
        raise RecordError("best weights", str(path), rule) from None
    return network


def score(record: RunRecord, images: OnDeviceImages, *, views: Views | None = None) -> Scores:
    """Compute class probabilities of images with a run's network, in its training precision.

    Args:
        record: finished run.
        images: images on the device to use.
        views: test-time augmentation; default: that of the recipe.

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
    # In float64, so that distinct log-probabilities stay distinct; on the CPU, as mps has no float64.
    probabilities = np.exp(evaluator.log_probabilities().cpu().double().numpy())
    return Scores(probabilities=probabilities, labels=images.labels.cpu().numpy())


@contextmanager
def _lock_openings(out: Path) -> Iterator[None]:
    """Hold the lock of a folder's log of openings.

    Raises:
        DataError: the lock cannot be created.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(out / f".{TEST_OPENINGS_FILE}.lock"))
        except OSError as error:
            rule = f"cannot be written ({error.strerror or error}), so the test set stays sealed"
            raise DataError("log", str(out / TEST_OPENINGS_FILE), rule) from None
        yield


def evaluate_on_test(
    records: Sequence[RunRecord], dataset: DataSet, *, by: str, reason: str, device: torch.device, out: Path
) -> None:
    """Evaluate runs on the test set, opened once for the runs that have no test result yet.

    The predictions are stored with the results, so that later evaluations need no further opening.

    Args:
        records: complete runs.
        dataset: data set of the runs.
        by: command or study that opens the test set, for the log.
        reason: reason for the opening, for the log; shortened to what a record may hold.
        device: device to compute on.
        out: folder of run folders, which contains the log of openings.

    Raises:
        DataError: the opening cannot be logged.
        RecordError: a run's weights are damaged.
    """
    if all(record.test is not None for record in records):
        return
    # Shortened before the test set is opened: a result that cannot be stored would be an opening in vain.
    reason = reason if len(reason) <= MAX_REASON else f"{reason[: MAX_REASON - 3]}..."
    # Locked, as another process that shares runs could open the test set for them a second time.
    with _lock_openings(out):
        waiting = [record for record in records if RunFolder(record.folder).load().test is None]
        if not waiting:
            return
        # Check all weights first, so that the test set is not opened in vain.
        for record in waiting:
            trained_network(record, torch.device("cpu"))
        names = [record.folder.name for record in waiting]
        images, labels = dataset.test.open(reason=reason, by=by, log=out / TEST_OPENINGS_FILE, runs=names)
        test = to_device(images, labels, device=device, mean=dataset.mean, std=dataset.std)
        for record in waiting:
            scores = score(record, test)
            folder = RunFolder(record.folder)
            # The result is written last, so that a stored result always has stored scores.
            folder.write_scores(scores)
            result = TestResult(loss=scores.loss, correct=scores.correct, images=scores.images, reason=reason)
            folder.write_test(result)
