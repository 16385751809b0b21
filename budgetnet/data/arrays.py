"""Data source ``arrays:PATH.npz``: a data set from one ``.npz`` file of arrays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import DataError, is_lack_of_resources, is_out_of_memory
from budgetnet.common.files import exists
from budgetnet.data.dataset import DataSet, check_pair, make_dataset

REQUIRED_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
VALIDATION_KEYS = ("val_images", "val_labels")
"""Optional, as in MedMNIST's files."""
OPTIONAL_KEYS = (*VALIDATION_KEYS, "class_names")

_log = logging.getLogger(__name__)


def load_arrays(path: Path, *, name: str | None = None) -> DataSet:
    """Load a ``.npz`` file; pickled arrays are rejected, so no code in it is executed.

    The file contains ``train_images`` and ``test_images``, uint8 (n, height, width) or (n, height, width, 1 or 3), and
    ``train_labels`` and ``test_labels``, integers (n,) or (n, 1); optionally ``class_names``, text (num_classes,).
    Images and labels under ``val_images`` and ``val_labels`` are added to the training images, of which every recipe
    holds out its own for validation; a warning and the provenance say so.

    Args:
        path: path of the file.
        name: name of the data set, also used in errors; default: ``arrays:`` and the path.

    Raises:
        DataError: the file is missing, damaged or not a ``.npz``, or its keys or arrays are not as described.
    """
    name = name or f"arrays:{path}"
    arrays = read_arrays(path, field="data", name=name, check_keys=lambda keys: _check_keys(name, keys))
    class_names = arrays.get("class_names")
    if class_names is not None and (class_names.dtype.kind != "U" or class_names.ndim != 1):
        raise DataError("data", name, "class_names must be an array of text, one name per class")
    provenance = "arrays from a file, as declared by its owner"
    train_images, train_labels = arrays["train_images"], _flat(arrays["train_labels"])
    if "val_images" in arrays:
        images, labels = arrays["val_images"], _flat(arrays["val_labels"])
        check_pair(images, labels, name=name, part="val")
        check_pair(train_images, train_labels, name=name, part="train")
        if images.shape[1:] != train_images.shape[1:]:
            rule = f"train and val images must have the same shape, not {train_images.shape[1:]} and {images.shape[1:]}"
            raise DataError("data", name, rule)
        train_images = np.concatenate([train_images, images])
        # numpy makes float64 of uint64 and int64. A label too large for int64 becomes negative, and is refused too.
        train_labels = np.concatenate([each.astype(np.int64) for each in (train_labels, labels)])
        remark = f"the {len(images):,} images of val_images are added to the training images"
        _log.warning("data %s: %s, of which every recipe holds out its own for validation", name, remark)
        provenance += f"; {remark}"
    return make_dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=arrays["test_images"],
        test_labels=_flat(arrays["test_labels"]),
        class_names=class_names.tolist() if class_names is not None else None,
        provenance=provenance,
    )


def _flat(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return labels in a column (n, 1), as some collections have them, as (n,)."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def read_arrays(
    path: Path, *, field: str, name: str, check_keys: Callable[[list[str]], None]
) -> dict[str, npt.NDArray[Any]]:
    """Read a ``.npz`` file of plain arrays; pickled arrays are rejected.

    Args:
        path: path of the file.
        field: name of the input in errors.
        name: value of the input in errors.
        check_keys: called with the names of the arrays before any is read.

    Raises:
        DataError: the file is missing, damaged or not a ``.npz``, or an array is not one of numbers or text.
    """
    if exists(path) and path.is_dir():
        raise DataError(field, name, "is a folder; must be a .npz file (folder:PATH loads a folder of images)")
    try:
        # Opened here because numpy does not close a file that is not a valid archive.
        with path.open("rb") as stream:
            return _read_stream(stream, field, name, check_keys)
    except FileNotFoundError:
        raise DataError(field, name, "no such file") from None
    except OSError as error:
        raise DataError(field, name, f"cannot be read: {error.strerror or error}") from None


def _read_stream(
    stream: BinaryIO, field: str, name: str, check_keys: Callable[[list[str]], None]
) -> dict[str, npt.NDArray[Any]]:
    try:
        archive = np.load(stream, allow_pickle=False)
    except Exception as error:  # numpy and zipfile raise many kinds of exceptions for damaged files
        if is_lack_of_resources(error):
            raise
        raise DataError(field, name, "must be a .npz file; this file is not one, or is incomplete") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(field, name, "must be a .npz file of several arrays, not a single array")
    check_keys(archive.files)
    arrays = {}
    for key in archive.files:
        try:
            arrays[key] = archive[key]
        except Exception as error:  # as above
            if is_out_of_memory(error):
                raise DataError(field, name, f"{key} does not fit into memory, or is damaged") from None
            if is_lack_of_resources(error):
                raise
            pickled = isinstance(error, ValueError) and "allow_pickle" in str(error)
            rule = "must be plain numbers or text, not pickled objects" if pickled else "is damaged"
            raise DataError(field, name, f"{key} {rule}") from None
        if not isinstance(arrays[key], np.ndarray):
            raise DataError(field, name, f"{key} must be an array")
    return arrays


def _check_keys(name: str, keys: list[str]) -> None:
    allowed = ", ".join(REQUIRED_KEYS) + " and optionally " + ", ".join(OPTIONAL_KEYS)
    for key in REQUIRED_KEYS + (VALIDATION_KEYS if {*VALIDATION_KEYS} & {*keys} else ()):
        if key not in keys:
            raise DataError("data", name, f"must contain {allowed}; {key} is missing")
    for key in keys:
        if key not in REQUIRED_KEYS + OPTIONAL_KEYS:
            raise DataError("data", name, f"must contain {allowed}, not {key!r}")
