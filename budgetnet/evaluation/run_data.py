"""The data set that a run was trained on, found again, and the images that it was validated on.

Torch is loaded only where images are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.common.errors import DataError, InputError, RecordError
from budgetnet.data import DataSet, load_dataset
from budgetnet.evaluation.results import Part, require_distinct
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder

if TYPE_CHECKING:
    import torch

    from budgetnet.data.on_device import ResidentImages
    from budgetnet.data.training_data import TrainingData

_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Known without its files, so that kept scores can be shown where those are not."""


class Question(NamedTuple):
    """What is asked of runs."""

    part: Part = "validation"
    """About which images."""
    data: str | None = None
    """Of which data set; of the one that each run's record names if left out."""
    views: Views | None = None
    """By which views of each image networks are judged, probabilities averaged; those of each recipe if omitted."""
    device: str = "auto"
    """Where to compute."""
    by: str = "evaluate"
    """Who asks, for the record of openings."""
    class_names: bool = True
    """Whether the names of classes are wanted, for which a data set may have to be loaded; else they are numbers."""

    def views_for(self, record: RunRecord) -> Views:
        """By which views of each image a run's network is judged."""
        return record.identity.recipe.views if self.views is None else self.views


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


class DataSets:
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
            raise InputError("data", dataset.name, rule)
        if (dataset.input_shape, dataset.num_classes) != (spec.input_shape, spec.num_classes):
            wanted = _in_words(spec.input_shape, spec.num_classes)
            given = _in_words(dataset.input_shape, dataset.num_classes)
            raise InputError("data", dataset.name, f"must have {wanted} for {run}, not {given}")

    def answers_from_record(self, record: RunRecord) -> bool:
        """Whether what is asked is what a run folder keeps: the run's own test images, judged as its recipe says."""
        own = self._question.data is None or self.of(record).fingerprint == record.identity.data.fingerprint
        return own and self._question.views_for(record) == record.identity.recipe.views

    def fingerprint(self, record: RunRecord) -> str:
        """Identity of the data set that a run is asked about; its own is known without loading it."""
        return record.identity.data.fingerprint if self._question.data is None else self.of(record).fingerprint

    def class_names(self, record: RunRecord) -> tuple[str, ...]:
        """Names of the classes; of the run's own data set their numbers where it is not to be had."""
        if self._question.data is not None:
            return self.of(record).class_names
        kept = _kept_class_names(record)
        if kept is None and self._question.class_names:
            with suppress(DataError):
                return self.of(record).class_names
        return kept or tuple(map(str, range(record.identity.spec.num_classes)))


def _kept_class_names(record: RunRecord) -> tuple[str, ...] | None:
    """Names of a run's classes where they are known without its data set."""
    data = record.identity.data
    if data.is_original_cifar10:
        return _CIFAR10_CLASSES
    fitting = data.class_names and len(data.class_names) == record.identity.spec.num_classes
    return data.class_names if fitting else None


def class_names(record: RunRecord, *, load: Callable[[str], DataSet] = load_dataset) -> tuple[str, ...]:
    """Names of a run's classes: as its folder has them, else as its data set has them, else their numbers.

    Args:
        record: the run.
        load: how its data set is loaded by name, where its folder has no names.
    """
    return DataSets(Question(), load).class_names(record)


def validation_images(
    record: RunRecord, *, device: torch.device, data: str | None = None, load: Callable[[str], DataSet] = load_dataset
) -> ResidentImages:
    """The images that a run was validated on.

    Args:
        record: the run.
        device: where they go.
        data: where its data set is now; where the run's record has it if left out.
        load: how data sets are loaded by name.

    Raises:
        DataError: the data set cannot be loaded, or is not the one that the run was trained on.
        InputError: likewise, where `data` names it.
        RecordError: its split cannot be made again.
    """
    return split_again(record, DataSets(Question(data=data), load).of(record), device).validation


def split_again(record: RunRecord, dataset: DataSet, device: torch.device) -> TrainingData:
    """The images that a run was trained and validated on.

    Raises:
        RecordError: the split is not the run's.
    """
    from budgetnet.data.training_data import TrainingData

    facts = record.identity.data
    sizes = {"train_size": facts.train_images, "validation_size": facts.validation_images}
    prepared = TrainingData.prepare(dataset, record.identity.recipe, device=device, **sizes)
    found = prepared.record.split_fingerprint
    if found != facts.split_fingerprint:
        rule = f"cannot be made again: here the recipe's split is {found[:10]}..., so nobody knows which images "
        raise RecordError(f"split of {record.folder.name}", facts.split_fingerprint, f"{rule}validated the run")
    return prepared


def _in_words(input_shape: tuple[int, int, int], num_classes: int) -> str:
    return f"images of {'x'.join(map(str, input_shape))} in {num_classes} classes"
