"""What runs are trained on and judged by: one split of a data set, on the device, shared by all runs of a study."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from budgetnet.common.files import MAX_TEXT_BYTES, read_mapping, replacing, write_json
from budgetnet.data import DataSet, split
from budgetnet.data.on_device import ResidentImages, resident
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import DataRecord

_FIELDS = tuple(field.name for field in fields(ResidentImages))


def _kept(class_names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names where a record has room for them: what is written larger than files may be could not be read again."""
    return class_names if len(json.dumps(class_names)) <= MAX_TEXT_BYTES // 4 else None


class TrainingData(NamedTuple):
    """Training and validation images on a device, shared by every run that has the same split."""

    train: ResidentImages
    validation: ResidentImages
    record: DataRecord
    input_shape: tuple[int, int, int]
    """Image as (channels, height, width)."""
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
        """Splits a data set as the recipe says and copies both parts to the device.

        Args:
            dataset: the data set; its test images are left alone.
            recipe: its validation fraction and split seed are used.
            device: where to.
            train_size: images to learn from, in the same shares of classes; all that are not held out if left out.
            validation_size: images to be judged on; all that are held out if left out.

        Raises:
            DataError: a size is larger than what there is, or too small for the number of classes.
        """
        parts = split(
            dataset.train_labels,
            validation_fraction=recipe.validation_fraction,
            seed=recipe.split_seed,
            train_size=train_size,
            validation_size=validation_size,
        )
        train, validation = (
            resident(
                dataset.train_images, dataset.train_labels, indices, device=device, mean=dataset.mean, std=dataset.std
            )
            for indices in (parts.train, parts.validation)
        )
        record = DataRecord(
            name=dataset.name,
            provenance=dataset.provenance,
            fingerprint=dataset.fingerprint,
            is_original_cifar10=dataset.is_original_cifar10,
            mean=dataset.mean,
            std=dataset.std,
            split_fingerprint=parts.fingerprint,
            train_images=len(train),
            validation_images=len(validation),
            class_names=_kept(dataset.class_names),
        )
        return cls(train, validation, record, dataset.input_shape, dataset.num_classes)

    def share(self, folder: Path) -> None:
        """Writes the images into a folder, for other processes to open; one that lies there already is replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in (("train", self.train), ("validation", self.validation)):
            for field in _FIELDS:
                with replacing(folder / f"{name}-{field}.npy") as stream:
                    np.save(stream, getattr(part, field).cpu().numpy(), allow_pickle=False)
        facts = {"record": self.record.to_mapping(), "input_shape": self.input_shape, "num_classes": self.num_classes}
        write_json(folder / "data.json", facts)

    @classmethod
    def open_shared(cls, folder: Path, *, device: torch.device) -> TrainingData:
        """Opens what another process shares: on a CPU the images lie in memory once for all of them.

        Args:
            folder: where they were written.
            device: where to train.
        """

        def part(name: str) -> ResidentImages:
            # Copied when written to, which nobody does: torch wants memory that it might write to.
            arrays = {field: np.load(folder / f"{name}-{field}.npy", mmap_mode="c") for field in _FIELDS}
            return ResidentImages(**{field: torch.from_numpy(array).to(device) for field, array in arrays.items()})

        facts = read_mapping(folder / "data.json")
        channels, height, width = facts["input_shape"]
        record = DataRecord.from_mapping(facts["record"])
        return cls(part("train"), part("validation"), record, (channels, height, width), facts["num_classes"])

    def adapt(self, spec: ModelSpec) -> ModelSpec:
        """The specification with this data's image shape and number of classes.

        Raises:
            InputError: at this image size a stride would shrink a map below one pixel.
        """
        if (spec.input_shape, spec.num_classes) == (self.input_shape, self.num_classes):
            return spec
        return spec.replace(input_shape=self.input_shape, num_classes=self.num_classes, name=spec.name)
