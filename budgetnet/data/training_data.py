"""Training and validation images on the device, shared by all runs with the same split."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from budgetnet.common.files import MAX_TEXT_BYTES, atomic_write, read_mapping, write_json
from budgetnet.data import DataSet, split
from budgetnet.data.copies import validation_remark
from budgetnet.data.on_device import OnDeviceImages, to_device
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import DataRecord

_FIELDS = tuple(field.name for field in fields(OnDeviceImages))


def _recorded(class_names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the names unless they are so long that the record would exceed the maximum file size."""
    return class_names if len(json.dumps(class_names)) <= MAX_TEXT_BYTES // 4 else None


class TrainingData(NamedTuple):
    """Training and validation images of one split on a device, with their record."""

    train: OnDeviceImages
    validation: OnDeviceImages
    record: DataRecord
    input_shape: tuple[int, int, int]
    """Image shape (channels, height, width)."""
    num_classes: int

    @classmethod
    def prepare(
        cls,
        dataset: DataSet,
        recipe: Recipe,
        *,
        device: torch.device,
        train_size: int | None = None,
        validation_size: int | None = None,
    ) -> TrainingData:
        """Split the training images of a data set and copy both parts to the device.

        Args:
            dataset: data set; its test images are not used.
            recipe: recipe with the validation fraction and the split seed.
            device: target device.
            train_size: number of training images, stratified by class; default: all that are not held out.
            validation_size: number of validation images; default: all that are held out.

        Raises:
            DataError: a size is larger than the part or smaller than the number of classes.
        """
        parts = split(
            dataset.train_labels,
            validation_fraction=recipe.validation_fraction,
            seed=recipe.split_seed,
            train_size=train_size,
            validation_size=validation_size,
            groups=dataset.groups_of_copies,
            class_names=dataset.class_names,
        )
        train, validation = (
            to_device(
                dataset.train_images, dataset.train_labels, indices, device=device, mean=dataset.mean, std=dataset.std
            )
            for indices in (parts.train, parts.validation)
        )
        record = DataRecord(
            name=dataset.name,
            provenance=dataset.provenance
            + validation_remark(dataset.groups_of_copies, train=parts.train, validation=parts.validation),
            fingerprint=dataset.fingerprint,
            is_original_cifar10=dataset.is_original_cifar10,
            mean=dataset.mean,
            std=dataset.std,
            split_fingerprint=parts.fingerprint,
            train_images=len(train),
            validation_images=len(validation),
            class_names=_recorded(dataset.class_names),
        )
        return cls(train, validation, record, dataset.input_shape, dataset.num_classes)

    def to_arrays(self) -> dict[str, Any]:
        """Return the images as numpy arrays, with what describes them as plain data, for other processes."""
        arrays = {
            f"{name}-{field}": getattr(part, field).cpu().numpy()
            for name, part in (("train", self.train), ("validation", self.validation))
            for field in _FIELDS
        }
        facts = {"record": self.record.to_mapping(), "input_shape": self.input_shape, "num_classes": self.num_classes}
        return {**arrays, "facts": facts}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], *, device: torch.device) -> TrainingData:
        """Create the object from the output of `to_arrays`; on a CPU the images stay in the arrays' memory."""

        def part(name: str) -> OnDeviceImages:
            return OnDeviceImages(**{f: torch.from_numpy(arrays[f"{name}-{f}"]).to(device) for f in _FIELDS})

        facts = arrays["facts"]
        channels, height, width = facts["input_shape"]
        record = DataRecord.from_mapping(facts["record"])
        return cls(part("train"), part("validation"), record, (channels, height, width), facts["num_classes"])

    def share(self, folder: Path) -> None:
        """Write the images to a folder from which other processes load them, replacing existing files."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = self.to_arrays()
        facts = arrays.pop("facts")
        for name, array in arrays.items():
            with atomic_write(folder / f"{name}.npy") as stream:
                np.save(stream, array, allow_pickle=False)
        write_json(folder / "data.json", facts)

    @classmethod
    def open_shared(cls, folder: Path, *, device: torch.device) -> TrainingData:
        """Load images written by `share`, memory-mapped so that processes on a CPU share one copy.

        Args:
            folder: folder to which they were written.
            device: target device.
        """
        # Copy-on-write mode, as torch requires writable memory; the images are never written to.
        arrays: dict[str, Any] = {path.stem: np.load(path, mmap_mode="c") for path in folder.glob("*.npy")}
        return cls.from_arrays({**arrays, "facts": read_mapping(folder / "data.json")}, device=device)

    def adapt(self, spec: ModelSpec) -> ModelSpec:
        """Return the spec with the image shape and number of classes of this data.

        Raises:
            InputError: a stride would shrink a feature map below one pixel at this image size.
        """
        return spec.adapted(input_shape=self.input_shape, num_classes=self.num_classes)
