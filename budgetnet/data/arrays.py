"""A data set from one ``.npz`` file of arrays."""

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
    """Loads a ``.npz`` file; nothing in it is executed, as pickled arrays are refused.

    It holds ``train_images`` and ``test_images``, uint8 (n, height, width) or (n, height, width, 1 or 3), and
    ``train_labels`` and ``test_labels``, whole numbers (n,); ``class_names``, text (number of classes,), if wanted.

    Args:
        path: the file.
        name: what was asked for, if not ``arrays:`` and the path; errors name it.

    Raises:
        DataError: the file is missing, damaged or not a ``.npz``, its keys are not those, or its arrays are not so.
    """
    name = name or f"arrays:{path}"
    arrays = _read(name, path)
    class_names = arrays.get("class_names")
    if class_names is not None and (class_names.dtype.kind != "U" or class_names.ndim != 1):
        raise DataError("data", name, "class_names must be an array of text, one name a class")
    return make_dataset(
        name=name,
        train_images=arrays["train_images"],
        train_labels=arrays["train_labels"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
        class_names=class_names.tolist() if class_names is not None else None,
        provenance="arrays from a file, as declared by its owner",
    )


def _read(name: str, path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.is_dir():
        raise DataError("data", name, "is a folder; must be a .npz file (or ask for folder:PATH)")
    try:
        # Opened here, because numpy leaves a file open that turns out to be a broken archive.
        with path.open("rb") as stream:
            return _read_stream(name, stream)
    except FileNotFoundError:
        raise DataError("data", name, "no such file") from None
    except OSError as error:
        raise DataError("data", name, f"cannot be read: {error.strerror or error}") from None


def _read_stream(name: str, stream: BinaryIO) -> dict[str, npt.NDArray[Any]]:
    try:
        archive = np.load(stream, allow_pickle=False)
    except Exception:  # numpy and zipfile answer broken bytes with nearly any exception
        raise DataError("data", name, "must be a .npz file; this is none, or only a part of one") from None
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
    allowed = ", ".join(REQUIRED_KEYS) + " and, if wanted, " + ", ".join(OPTIONAL_KEYS)
    for key in REQUIRED_KEYS:
        if key not in keys:
            raise DataError("data", name, f"must hold {allowed}; {key} is missing")
    for key in keys:
        if key not in REQUIRED_KEYS + OPTIONAL_KEYS:
            raise DataError("data", name, f"must hold {allowed}, and not {key!r}")
