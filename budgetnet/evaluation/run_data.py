"""Data of finished runs: their data sets, class names and validation images.

Torch is imported only if images are loaded.
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

    from budgetnet.data.on_device import OnDeviceImages
    from budgetnet.data.training_data import TrainingData

_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Class names of CIFAR-10, needed to show stored predictions where the data set is not available."""


class EvaluationRequest(NamedTuple):
    """Images and settings of an evaluation."""

    part: Part = "validation"
    """Validation images or test set."""
    data: str | None = None
    """Name of the data set; default: that of each run."""
    views: Views | None = None
    """Test-time augmentation, with averaged probabilities; default: that of each recipe."""
    device: str = "auto"
    """Device to compute on."""
    by: str = "evaluate"
    """Command that evaluates, for the log of test-set openings."""
    class_names: bool = True
    """Whether class names are needed, for which the data set may have to be loaded; otherwise classes are numbered."""

    def views_for(self, record: RunRecord) -> Views:
        """Return the test-time augmentation for a run."""
        return record.identity.recipe.views if self.views is None else self.views


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """Read the records of distinct runs that can be evaluated: complete ones, or ones stopped early.

    Raises:
        RecordError: a folder contains no run, or one that is unfinished, damaged or without a result.
        InputError: a run is given twice.
    """
    # Resolve paths such as ".", which have no name; names and parent folders of run folders are needed.
    records = [RunFolder(path if path.name not in ("", "..") else path.resolve()).load() for path in paths]
    for record in records:
        if record.result.status == "diverged" or record.result.best_epoch is None:
            raise RecordError("run folder", str(record.folder), f"has no result: {record.result.reason}")
    require_distinct(records)
    return records


class DataSets:
    """Data sets of an evaluation, each loaded once."""

    def __init__(self, request: EvaluationRequest, load: Callable[[str], DataSet]) -> None:
        self._request, self._load = request, load
        self._loaded: dict[str, DataSet] = {}

    def of(self, record: RunRecord) -> DataSet:
        """Return the data set on which a run is evaluated, with the run's normalisation.

        Raises:
            DataError: it cannot be loaded, or is not the one that the run was trained on and no other was requested.
            InputError: its images or classes do not fit the run's network.
        """
        own, wanted = record.identity.data, self._request.data
        name = own.name if wanted is None else wanted
        if name not in self._loaded:
            try:
                self._loaded[name] = self._load(name)
            except DataError as error:
                hint = "" if wanted else f"; {record.folder.name} was trained on it: give its location with --data"
                raise DataError(error.field, error.value, error.rule + hint) from None
        dataset = self._loaded[name]
        if dataset.fingerprint != own.fingerprint:
            if wanted is None:
                rule = f"is not the data set that {record.folder.name} was trained on: its fingerprint is "
                rule += f"{dataset.fingerprint[:10]}..., not {own.fingerprint[:10]}...; give the right one with --data"
                raise DataError("data", name, rule)
            self._require_fit(dataset, record)
            dataset = _in_order_of_classes(dataset, record)
        return replace(dataset, mean=own.mean, std=own.std)

    def _require_fit(self, dataset: DataSet, record: RunRecord) -> None:
        """Raise an error unless a run can be evaluated on a data set that it was not trained on."""
        run, spec = record.folder.name, record.identity.spec
        if self._request.part == "validation":
            rule = f"is not the data set that {run} was trained on and has none of its validation images; use --on test"
            raise InputError("data", dataset.name, rule)
        if (dataset.input_shape, dataset.num_classes) != (spec.input_shape, spec.num_classes):
            wanted = _describe_images(spec.input_shape, spec.num_classes)
            given = _describe_images(dataset.input_shape, dataset.num_classes)
            raise InputError("data", dataset.name, f"must have {wanted} for {run}, not {given}")

    def can_use_stored(self, record: RunRecord) -> bool:
        """Return whether a run folder stores these predictions: of its own test set, with the views of its recipe."""
        own = self._request.data is None or self.of(record).fingerprint == record.identity.data.fingerprint
        return own and self._request.views_for(record) == record.identity.recipe.views

    def fingerprint(self, record: RunRecord) -> str:
        """Return the fingerprint of the data set on which a run is evaluated."""
        return record.identity.data.fingerprint if self._request.data is None else self.of(record).fingerprint

    def class_names(self, record: RunRecord) -> tuple[str, ...]:
        """Return the class names, or numbers if the run has no names and its data set cannot be loaded."""
        if self._request.data is not None:
            return self.of(record).class_names
        names = _stored_class_names(record)
        if names is None and self._request.class_names:
            with suppress(DataError):
                return self.of(record).class_names
        return names or _numbers(record.identity.spec.num_classes)


def _numbers(count: int) -> tuple[str, ...]:
    """Return the names of classes without names."""
    return tuple(map(str, range(count)))


def _in_order_of_classes(dataset: DataSet, record: RunRecord) -> DataSet:
    """Return a data set with the class numbers of a run, matched by name; unchanged where one has only numbers.

    Raises:
        InputError: the names of the classes differ.
    """
    own, other = _stored_class_names(record), dataset.class_names
    if own is None or own == other or _numbers(dataset.num_classes) in (own, other):
        return dataset
    missing = [name for name in own if name not in other]
    if missing:
        rule = (
            f"has no class {missing[0]!r}, which {record.folder.name} was trained on; its classes: {', '.join(other)}"
        )
        raise InputError("data", dataset.name, rule)
    return replace(dataset, class_names=own, test=dataset.test.relabelled([own.index(name) for name in other]))


def require_common_classes(records: Sequence[RunRecord]) -> None:
    """Raise an error unless all runs number the classes alike, so that their predictions can be averaged.

    Raises:
        InputError: the names or the order of a run's classes differ from those of the first.
    """
    named = [(record, names) for record in records if (names := _stored_class_names(record)) is not None]
    for record, names in named:
        # Numbers are no names: they stand for any.
        if names != named[0][1] and _numbers(len(names)) not in (names, named[0][1]):
            first = named[0][0].folder.name
            rule = f"was trained on other classes than {first}, or in another order, so they cannot be averaged"
            raise InputError("run", str(record.folder), rule)


def _stored_class_names(record: RunRecord) -> tuple[str, ...] | None:
    """Return the class names that are known without the data set, or None."""
    data = record.identity.data
    if data.is_original_cifar10:
        return _CIFAR10_CLASSES
    matches = data.class_names and len(data.class_names) == record.identity.spec.num_classes
    return data.class_names if matches else None


def class_names(record: RunRecord, *, load: Callable[[str], DataSet] = load_dataset) -> tuple[str, ...]:
    """Return the class names stored in the run folder, else those of the data set, else numbers.

    Args:
        record: finished run.
        load: loads the data set by name.
    """
    return DataSets(EvaluationRequest(), load).class_names(record)


def validation_images(
    record: RunRecord, *, device: torch.device, data: str | None = None, load: Callable[[str], DataSet] = load_dataset
) -> OnDeviceImages:
    """Return the validation images of a run.

    Args:
        record: finished run.
        device: device of the images.
        data: name of the data set; default: as in the run's record.
        load: loads a data set by name.

    Raises:
        DataError: the data set cannot be loaded, or is not the one that the run was trained on.
        InputError: ``data`` is not the data set that the run was trained on.
        RecordError: the split cannot be recreated.
    """
    return recreate_split(record, DataSets(EvaluationRequest(data=data), load).of(record), device).validation


def recreate_split(record: RunRecord, dataset: DataSet, device: torch.device) -> TrainingData:
    """Return the training and validation images of a run.

    Raises:
        RecordError: the split differs from the run's.
    """
    from budgetnet.data.training_data import TrainingData

    stored = record.identity.data
    sizes = {"train_size": stored.train_images, "validation_size": stored.validation_images}
    prepared = TrainingData.prepare(dataset, record.identity.recipe, device=device, **sizes)
    found = prepared.record.split_fingerprint
    if found != stored.split_fingerprint:
        rule = f"cannot be recreated: the recipe now gives {found[:10]}..., so the validation images are unknown"
        raise RecordError(f"split of {record.folder.name}", stored.split_fingerprint, rule)
    return prepared


def _describe_images(input_shape: tuple[int, int, int], num_classes: int) -> str:
    return f"images of {'x'.join(map(str, input_shape))} in {num_classes} classes"
