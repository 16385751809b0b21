"""Data source ``arrays:PATH.npz``: a data set from one ``.npz`` file of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import DataError
from budgetnet.data.dataset import DataSet, make_dataset

REQUIRED_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
OPTIONAL_KEYS = ("class_names",)


def load_arrays(path: Path, *, name: str | None = None) -> DataSet:
    """Load a ``.npz`` file; pickled arrays are rejected, so no code in it is executed.

    The file contains ``train_images`` and ``test_images``, uint8 (n, height, width) or (n, height, width, 1 or 3), and
    ``train_labels`` and ``test_labels``, integers (n,) or (n, 1); optionally ``class_names``, text (num_classes,).

    Args:
        path: path of the file.
        name: name of the data set, also used in errors; default: ``arrays:`` and the path.

    Raises:
        DataError: the file is missing, damaged or not a ``.npz``, or its keys or arrays are not as described.
    """
    name = name or f"arrays:{path}"
    arrays = _read(name, path)
    class_names = arrays.get("class_names")
    if class_names is not None and (class_names.dtype.kind != "U" or class_names.ndim != 1):
        raise DataError("data", name, "class_names must be an array of text, one name per class")
    return make_dataset(
        name=name,
        train_images=arrays["train_images"],
        train_labels=_flat(arrays["train_labels"]),
        test_images=arrays["test_images"],
        test_labels=_flat(arrays["test_labels"]),
        class_names=class_names.tolist() if class_names is not None else None,
        provenance="arrays from a file, as declared by its owner",
    )


def _flat(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return labels in a column (n, 1), as some collections have them, as (n,)."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _read(name: str, path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.is_dir():
        raise DataError("data", name, "is a folder; must be a .npz file (folder:PATH loads a folder of images)")
    try:
        # Opened here because numpy does not close a file that is not a valid archive.
        with path.open("rb") as stream:
            return _read_stream(name, stream)
    except FileNotFoundError:
        raise DataError("data", name, "no such file") from None
    except OSError as error:
        raise DataError("data", name, f"cannot be read: {error.strerror or error}") from None


def _read_stream(name: str, stream: BinaryIO) -> dict[str, npt.NDArray[Any]]:
    try:
        archive = np.load(stream, allow_pickle=False)
    except Exception:  # numpy and zipfile raise many kinds of exceptions for damaged files
        raise DataError("data", name, "must be a .npz file; this file is not one, or is incomplete") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError("data", name, "must be a .npz file of several arrays, not a single array")
    _check_keys(name, archive.files)
    arrays = {}
    for key in archive.files:
        try:
            arrays[key] = archive[key]
        except Exception as error:  # as above
            pickled = isinstance(error, ValueError) and "allow_pickle" in str(error)
            rule = "must be plain numbers or text, not pickled objects" if pickled else "is damaged"
            raise DataError("data", name, f"{key} {rule}") from None
        if not isinstance(arrays[key], np.ndarray):
            raise DataError("data", name, f"{key} must be an array")
    return arrays


def _check_keys(name: str, keys: list[str]) -> None:
    allowed = ", ".join(REQUIRED_KEYS) + " and optionally " + ", ".join(OPTIONAL_KEYS)
    for key in REQUIRED_KEYS:
        if key not in keys:
            raise DataError("data", name, f"must contain {allowed}; {key} is missing")
    for key in keys:
        if key not in REQUIRED_KEYS + OPTIONAL_KEYS:
            raise DataError("data", name, f"must contain {allowed}, not {key!r}")
