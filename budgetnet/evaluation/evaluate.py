"""Evaluation of runs on their validation images or on a test set.

Validation images can be evaluated at any time. A test set is opened only for runs whose folders do not store its
predictions yet, once for all of them and after all other checks, and every opening is logged.

Torch is imported only if predictions are computed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from budgetnet.common.errors import RecordError
from budgetnet.data import DataSet, load_dataset
from budgetnet.evaluation.results import EvaluatedRun
from budgetnet.evaluation.run_data import DataSets, EvaluationRequest, recreate_split
from budgetnet.runs.metrics import Scores
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import TEST_OPENINGS_FILE, RunFolder

if TYPE_CHECKING:
    import torch

    from budgetnet.data.on_device import OnDeviceImages
    from budgetnet.data.training_data import TrainingData

_VIEWS_TEXT: dict[Views | None, str] = {
    None: "",
    "none": ", without mirror images",
    "flip": ", with mirror images",
    "flip-and-shifts": ", with mirror images and shifts",
}
"""Views in the reason for opening a test set."""


def evaluate_runs(
    records: Sequence[RunRecord], request: EvaluationRequest, *, load: Callable[[str], DataSet] = load_dataset
) -> list[EvaluatedRun]:
    """Evaluate each run's network on the requested images.

    Args:
        records: distinct runs.
        request: images and settings of the evaluation.
        load: loads a data set by name.

    Raises:
        DataError: a data set cannot be loaded, or is not the one that a run was trained on.
        RecordError: a run's weights or stored predictions are damaged, its split cannot be recreated, or a run that was
            stopped early is to be evaluated on the test set.
        InputError: the device is not available, or a data set does not fit a run's network.
    """
    data = DataSets(request, load)
    if request.part == "validation":
        return _on_validation(records, request, data)
    for record in records:
        if record.result.status != "complete":
            rule = f"was stopped early ({record.result.reason}); only complete runs are evaluated on the test set"
            raise RecordError("run folder", str(record.folder), rule)
    return _on_test(records, request, data)


def _on_validation(records: Sequence[RunRecord], request: EvaluationRequest, data: DataSets) -> list[EvaluatedRun]:
    datasets = [data.of(record) for record in records]
    from budgetnet.evaluation.inference import score
    from budgetnet.training.devices import choose_device

    device = choose_device(request.device)
    prepared: dict[str, TrainingData] = {}
    images: dict[str, str] = {}
    evaluated = []
    for record, dataset in zip(records, datasets, strict=True):
        data_record = record.identity.data
        key = str(data_record.key)
        if key not in prepared:
            prepared[key] = recreate_split(record, dataset, device)
            # Runs with other numbers of training images share them.
            images[key] = _digest(prepared[key].validation)
        evaluated.append(
            EvaluatedRun(
                record=record,
                scores=score(record, prepared[key].validation, views=request.views),
                part="validation",
                images=images[key],
                class_names=dataset.class_names,
                views=request.views_for(record),
                kept=False,
            )
        )
    return evaluated


def _digest(images: OnDeviceImages) -> str:
    """Return the identity of images and labels in their order."""
    digest = hashlib.sha256(repr(tuple(images.images.shape)).encode())
    for each in (images.images, images.labels):
        digest.update(each.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _on_test(records: Sequence[RunRecord], request: EvaluationRequest, data: DataSets) -> list[EvaluatedRun]:
    stored = {
        record.folder: scores
        for record in records
        if data.can_use_stored(record) and (scores := _stored_scores(record)) is not None
    }
    missing = [record for record in records if record.folder not in stored]
    scores_of = {**stored, **(_open_and_evaluate(missing, request, data) if missing else {})}
    return [
        EvaluatedRun(
            record=RunFolder(record.folder).load(),
            scores=scores_of[record.folder],
            part="test",
            images=data.fingerprint(record),
            class_names=data.class_names(record),
            views=request.views_for(record),
            kept=record.folder in stored,
        )
        for record in records
    ]


def _stored_scores(record: RunRecord) -> Scores | None:
    """Return the test-set predictions stored in a run folder, or None.

    Raises:
        RecordError: they are damaged or do not match the stored result.
    """
    folder = RunFolder(record.folder)
    test, scores = folder.load().test, folder.read_scores()
    if test is None or scores is None:
        return None
    if (scores.correct, scores.images) != (test.correct, test.images):
        rule = f"is damaged: test.json has {test.correct} of {test.images}"
        raise RecordError(f"stored scores of {record.folder}", f"{scores.correct} of {scores.images}", rule)
    return scores


def _open_and_evaluate(records: Sequence[RunRecord], request: EvaluationRequest, data: DataSets) -> dict[Path, Scores]:
    """Open test sets, once for the runs of each folder, evaluate the runs, and store what belongs into run folders."""
    datasets = {record.folder: data.of(record) for record in records}
    import torch

    from budgetnet.evaluation.inference import evaluate_on_test, trained_network
    from budgetnet.training.devices import choose_device

    device = choose_device(request.device)
    for record in records:
        trained_network(record, torch.device("cpu"))
    found: dict[Path, Scores] = {}
    without_test = [record for record in records if record.test is None and data.can_use_stored(record)]
    for group in _groups(without_test, lambda record: (record.folder.parent, *_images_of(record))):
        dataset, out = datasets[group[0].folder], group[0].folder.parent
        evaluate_on_test(group, dataset, by=request.by, reason=_reason(group, request), device=device, out=out)
        found |= {record.folder: scores for record in group if (scores := _stored_scores(record)) is not None}
    rest = [record for record in records if record.folder not in found]
    for group in _groups(rest, lambda record: (record.folder.parent, datasets[record.folder].fingerprint)):
        found |= _evaluate_without_storing(group, datasets, request, device)
    for record in rest:
        # Earlier versions stored the test result without predictions; add them if they reproduce the result.
        test, scores = record.test, found[record.folder]
        if test and data.can_use_stored(record) and (scores.correct, scores.images) == (test.correct, test.images):
            RunFolder(record.folder).write_scores(scores)
    return found


def _evaluate_without_storing(
    records: Sequence[RunRecord], datasets: dict[Path, DataSet], request: EvaluationRequest, device: torch.device
) -> dict[Path, Scores]:
    """Open a test set and evaluate runs on it."""
    from budgetnet.data.on_device import to_device
    from budgetnet.evaluation.inference import score

    shared, log = datasets[records[0].folder], records[0].folder.parent / TEST_OPENINGS_FILE
    reason = f"{_reason(records, request)}, on {shared.name}"
    runs = [record.folder.name for record in records]
    images, labels = shared.test.open(reason=reason, by=request.by, log=log, runs=runs)
    found = {}
    for record in records:
        own = datasets[record.folder]
        # Runs may number the classes differently.
        numbers = np.array([own.class_names.index(name) for name in shared.class_names])
        test = to_device(images, numbers[labels], device=device, mean=own.mean, std=own.std)
        found[record.folder] = score(record, test, views=request.views)
    return found


def _groups(records: Sequence[RunRecord], key: Callable[[RunRecord], object]) -> list[list[RunRecord]]:
    groups: dict[object, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return list(groups.values())


def _images_of(record: RunRecord) -> tuple[Any, ...]:
    """Return what determines a run's own test images and their normalisation."""
    data = record.identity.data
    return data.fingerprint, data.mean, data.std


def _reason(records: Sequence[RunRecord], request: EvaluationRequest) -> str:
    """Return the reason for opening a test set, short enough to be stored with a result."""
    first, others = records[0].identity.run_id, len(records) - 1
    return f"evaluation requested for {first}{f' and {others} more' if others else ''}{_VIEWS_TEXT[request.views]}"
