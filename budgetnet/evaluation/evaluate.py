"""What runs say of images: computed on the images that they were validated on, or, on a test set, from what they keep.

Validation images can be asked about at any time. A test set is opened only where a run folder does not hold the answer,
once for all runs that need it, after everything else that can fail, and every opening is written down.

Torch is loaded only where something is computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetnet.common.errors import RecordError
from budgetnet.data import DataSet, load_dataset
from budgetnet.evaluation.results import Evaluated
from budgetnet.evaluation.run_data import DataSets, Question, split_again
from budgetnet.runs.metrics import Scores
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import OPENINGS, RunFolder

if TYPE_CHECKING:
    import torch

    from budgetnet.data.training_data import TrainingData

_HOW: dict[Views | None, str] = {
    None: "",
    "none": ", without mirror images",
    "flip": ", with mirror images",
    "flip-and-shifts": ", with mirror images and shifts",
}
"""What the reason for opening a test set says of views."""


def ask(
    records: Sequence[RunRecord], question: Question, *, load: Callable[[str], DataSet] = load_dataset
) -> list[Evaluated]:
    """What each run's network says of the images in question.

    Args:
        records: different runs.
        question: what to ask.
        load: how data sets are loaded by name.

    Raises:
        DataError: a data set cannot be loaded, or is not the one that a run was trained on.
        RecordError: a run's weights or kept scores are damaged, its split cannot be made again, or it was stopped
            before its end and the test set is in question.
        InputError: this machine has no such device, or a data set does not fit a run's network.
    """
    data = DataSets(question, load)
    if question.part == "validation":
        return _on_validation(records, question, data)
    for record in records:
        if record.result.status != "complete":
            rule = f"was stopped before its end ({record.result.reason}); the test set is for runs that came to theirs"
            raise RecordError("run folder", str(record.folder), rule)
    return _on_test(records, question, data)


def _on_validation(records: Sequence[RunRecord], question: Question, data: DataSets) -> list[Evaluated]:
    datasets = [data.of(record) for record in records]
    from budgetnet.evaluation.inference import score
    from budgetnet.training.devices import choose_device

    device = choose_device(question.device)
    prepared: dict[str, TrainingData] = {}
    evaluated = []
    for record, dataset in zip(records, datasets, strict=True):
        facts = record.identity.data
        key = str(facts.key)
        if key not in prepared:
            prepared[key] = split_again(record, dataset, device)
        evaluated.append(
            Evaluated(
                record=record,
                scores=score(record, prepared[key].validation, views=question.views),
                part="validation",
                images=f"{facts.fingerprint} {facts.split_fingerprint}",
                class_names=dataset.class_names,
                views=question.views_for(record),
                kept=False,
            )
        )
    return evaluated


def _on_test(records: Sequence[RunRecord], question: Question, data: DataSets) -> list[Evaluated]:
    kept = {
        record.folder: scores
        for record in records
        if data.answers_from_record(record) and (scores := _kept(record)) is not None
    }
    missing = [record for record in records if record.folder not in kept]
    answers = {**kept, **(_open(missing, question, data) if missing else {})}
    return [
        Evaluated(
            record=RunFolder(record.folder).load(),
            scores=answers[record.folder],
            part="test",
            images=data.fingerprint(record),
            class_names=data.class_names(record),
            views=question.views_for(record),
            kept=record.folder in kept,
        )
        for record in records
    ]


def _kept(record: RunRecord) -> Scores | None:
    """What a run folder keeps of the test images, where it does.

    Raises:
        RecordError: it is damaged, or not what the result was made from.
    """
    folder = RunFolder(record.folder)
    test, scores = folder.load().test, folder.read_scores()
    if test is None or scores is None:
        return None
    if (scores.correct, scores.images) != (test.correct, test.images):
        rule = f"is damaged: test.json says {test.correct} of {test.images}"
        raise RecordError(f"kept scores of {record.folder}", f"{scores.correct} of {scores.images}", rule)
    return scores


def _open(records: Sequence[RunRecord], question: Question, data: DataSets) -> dict[Path, Scores]:
    """Opens test sets, once for the runs of a folder, and asks the runs; what a run folder can keep is kept in it."""
    datasets = {record.folder: data.of(record) for record in records}
    import torch

    from budgetnet.evaluation.inference import judge, trained_network
    from budgetnet.training.devices import choose_device

    device = choose_device(question.device)
    for record in records:
        trained_network(record, torch.device("cpu"))
    found: dict[Path, Scores] = {}
    unjudged = [record for record in records if record.test is None and data.answers_from_record(record)]
    for group in _groups(unjudged, lambda record: (record.folder.parent, *_images_of(record))):
        dataset, out = datasets[group[0].folder], group[0].folder.parent
        judge(group, dataset, by=question.by, reason=_reason(group, question), device=device, out=out)
        found |= {record.folder: scores for record in group if (scores := _kept(record)) is not None}
    rest = [record for record in records if record.folder not in found]
    for group in _groups(rest, lambda record: (record.folder.parent, datasets[record.folder].fingerprint)):
        found |= _ask_anew(group, datasets, question, device)
    for record in rest:
        # Judged by a version that kept no scores; they are kept where they are those that the result was made from.
        test, scores = record.test, found[record.folder]
        if test and data.answers_from_record(record) and (scores.correct, scores.images) == (test.correct, test.images):
            RunFolder(record.folder).write_scores(scores)
    return found


def _ask_anew(
    records: Sequence[RunRecord], datasets: dict[Path, DataSet], question: Question, device: torch.device
) -> dict[Path, Scores]:
    """Opens a test set for what run folders do not keep."""
    from budgetnet.data.on_device import resident
    from budgetnet.evaluation.inference import score

    shared, log = datasets[records[0].folder], records[0].folder.parent / OPENINGS
    reason = f"{_reason(records, question)}, on {shared.name}"
    runs = [record.folder.name for record in records]
    images, labels = shared.test.open(reason=reason, by=question.by, log=log, runs=runs)
    found = {}
    for record in records:
        own = datasets[record.folder]
        test = resident(images, labels, device=device, mean=own.mean, std=own.std)
        found[record.folder] = score(record, test, views=question.views)
    return found


def _groups(records: Sequence[RunRecord], key: Callable[[RunRecord], object]) -> list[list[RunRecord]]:
    groups: dict[object, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return list(groups.values())


def _images_of(record: RunRecord) -> tuple[Any, ...]:
    """What decides which test images a run is asked about, and how they are normalised."""
    data = record.identity.data
    return data.fingerprint, data.mean, data.std


def _reason(records: Sequence[RunRecord], question: Question) -> str:
    """Why a test set is opened, short enough for a result to hold it."""
    first, others = records[0].identity.run_id, len(records) - 1
    return f"asked for by hand: {first}{f' and {others} more' if others else ''}{_HOW[question.views]}"
