"""What runs say of images: computed on the images that they were validated on, or, on a test set, from what they keep.

Validation images can be asked about at any time. A test set is opened only where a run folder does not hold the answer,
once for all runs that need it, after everything else that can fail, and every opening is written down.

Torch is loaded only where something is computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.data import DataSet, load_dataset
from budgetnet.errors import DataError, InputError, RecordError
from budgetnet.evaluation import Evaluated, Part, require_distinct
from budgetnet.records import RunRecord
from budgetnet.run_folder import OPENINGS, RunFolder
from budgetnet.scores import Scores

if TYPE_CHECKING:
    import torch

_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Known without its files, so that kept scores can be shown where those are not."""


class Question(NamedTuple):
    """What is asked of runs."""

    part: Part = "validation"
    """About which images."""
    data: str | None = None
    """Of which data set; of the one that each run's record names if left out."""
    flip: bool | None = None
    """Whether mirror images are judged as well and probabilities averaged; as each recipe says if left out."""
    device: str = "auto"
    """Where to compute."""
    by: str = "evaluate"
    """Who asks, for the record of openings."""
    class_names: bool = True
    """Whether the names of classes are wanted, for which a data set may have to be loaded; else they are numbers."""


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """Reads runs that can be asked: different ones that came to a result, or that a search stopped on the way.

    Raises:
        RecordError: a folder holds no run, or one that is unfinished, damaged or came to nothing.
        InputError: a run stands twice.
    """
    # The last part of a path such as . names no folder, and the record of openings lies beside the folder.
    records = [RunFolder(path if path.name not in ("", "..") else path.resolve()).load() for path in paths]
    for record in records:
        if record.result.status == "diverged" or record.result.best_epoch is None:
            raise RecordError("run folder", str(record.folder), f"came to no result: {record.result.reason}")
    require_distinct(records)
    return records


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
    data = _DataSets(question, load)
    if question.part == "validation":
        return _on_validation(records, question, data)
    for record in records:
        if record.result.status != "complete":
            rule = f"was stopped before its end ({record.result.reason}); the test set is for runs that came to theirs"
            raise RecordError("run folder", str(record.folder), rule)
    return _on_test(records, question, data)


class _DataSets:
    """The data sets in question, each loaded once."""

    def __init__(self, question: Question, load: Callable[[str], DataSet]) -> None:
        self._question, self._load = question, load
        self._loaded: dict[str, DataSet] = {}

    def of(self, record: RunRecord) -> DataSet:
        """The data set that a run is asked about, its pixels normalised as the run's network knows them.

        Raises:
            DataError: it cannot be loaded, or is not what the run was trained on and nobody asked for another.
            InputError: its images or classes are not such as the run's network takes.
        """
        facts, wanted = record.identity.data, self._question.data
        name = facts.name if wanted is None else wanted
        if name not in self._loaded:
            try:
                self._loaded[name] = self._load(name)
            except DataError as error:
                hint = "" if wanted else f"; {record.folder.name} was trained on it, --data says where it is now"
                raise DataError(error.field, error.value, error.rule + hint) from None
        dataset = self._loaded[name]
        if dataset.fingerprint != facts.fingerprint:
            if wanted is None:
                rule = f"is not what {record.folder.name} was trained on: its fingerprint is "
                rule += f"{dataset.fingerprint[:10]}..., not {facts.fingerprint[:10]}...; --data says where that is now"
                raise DataError("data", name, rule)
            self._require_fit(dataset, record)
        return replace(dataset, mean=facts.mean, std=facts.std)

    def _require_fit(self, dataset: DataSet, record: RunRecord) -> None:
        """Lets a data set pass that a run was not trained on, but can be asked about."""
        run, spec = record.folder.name, record.identity.spec
        if self._question.part == "validation":
            rule = f"is not what {run} was trained on, so none of it are its validation images; --on test takes others"
            raise InputError("--data", dataset.name, rule)
        if (dataset.input_shape, dataset.num_classes) != (spec.input_shape, spec.num_classes):
            wanted = _in_words(spec.input_shape, spec.num_classes)
            given = _in_words(dataset.input_shape, dataset.num_classes)
            raise InputError("--data", dataset.name, f"must have {wanted} for {run}, not {given}")

    def answers_from_record(self, record: RunRecord) -> bool:
        """Whether what is asked is what a run folder keeps: the run's own test images, judged as its recipe says."""
        own = self._question.data is None or self.of(record).fingerprint == record.identity.data.fingerprint
        return own and _flip(record, self._question) == record.identity.recipe.test_time_flip

    def fingerprint(self, record: RunRecord) -> str:
        """Identity of the data set that a run is asked about; its own is known without loading it."""
        return record.identity.data.fingerprint if self._question.data is None else self.of(record).fingerprint

    def class_names(self, record: RunRecord) -> tuple[str, ...]:
        """Names of the classes; of the run's own data set their numbers where it is not to be had."""
        if self._question.data is not None:
            return self.of(record).class_names
        if record.identity.data.is_original_cifar10:
            return _CIFAR10_CLASSES
        if self._question.class_names:
            with suppress(DataError):
                return self.of(record).class_names
        return tuple(map(str, range(record.identity.spec.num_classes)))


def _on_validation(records: Sequence[RunRecord], question: Question, data: _DataSets) -> list[Evaluated]:
    datasets = [data.of(record) for record in records]
    from budgetnet.environment import choose_device
    from budgetnet.judging import score
    from budgetnet.training_data import TrainingData

    device = choose_device(question.device)
    prepared: dict[str, TrainingData] = {}
    evaluated = []
    for record, dataset in zip(records, datasets, strict=True):
        facts = record.identity.data
        key = str(facts.key)
        if key not in prepared:
            sizes = {"train_size": facts.train_images, "validation_size": facts.validation_images}
            prepared[key] = TrainingData.prepare(dataset, record.identity.recipe, device=device, **sizes)
        found = prepared[key].record.split_fingerprint
        if found != facts.split_fingerprint:
            rule = f"cannot be made again: here the recipe's split is {found[:10]}..., so nobody knows which images "
            raise RecordError(f"split of {record.folder.name}", facts.split_fingerprint, f"{rule}validated the run")
        evaluated.append(
            Evaluated(
                record=record,
                scores=score(record, prepared[key].validation, flip=question.flip),
                part="validation",
                images=f"{facts.fingerprint} {facts.split_fingerprint}",
                class_names=dataset.class_names,
                flip=_flip(record, question),
                kept=False,
            )
        )
    return evaluated


def _on_test(records: Sequence[RunRecord], question: Question, data: _DataSets) -> list[Evaluated]:
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
            flip=_flip(record, question),
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


def _open(records: Sequence[RunRecord], question: Question, data: _DataSets) -> dict[Path, Scores]:
    """Opens test sets, once for the runs of a folder, and asks the runs; what a run folder can keep is kept in it."""
    datasets = {record.folder: data.of(record) for record in records}
    import torch

    from budgetnet.environment import choose_device
    from budgetnet.judging import judge, trained_network

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
    from budgetnet.data.device import resident
    from budgetnet.judging import score

    shared, log = datasets[records[0].folder], records[0].folder.parent / OPENINGS
    reason = f"{_reason(records, question)}, on {shared.name}"
    runs = [record.folder.name for record in records]
    images, labels = shared.test.open(reason=reason, by=question.by, log=log, runs=runs)
    found = {}
    for record in records:
        own = datasets[record.folder]
        test = resident(images, labels, device=device, mean=own.mean, std=own.std)
        found[record.folder] = score(record, test, flip=question.flip)
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
    how = {None: "", True: ", with mirror images", False: ", without mirror images"}[question.flip]
    return f"asked for by hand: {first}{f' and {others} more' if others else ''}{how}"


def _flip(record: RunRecord, question: Question) -> bool:
    return record.identity.recipe.test_time_flip if question.flip is None else question.flip


def _in_words(input_shape: tuple[int, int, int], num_classes: int) -> str:
    return f"images of {'x'.join(map(str, input_shape))} in {num_classes} classes"
