"""Data sources: load a data set by name, such as ``digits``, ``cifar10`` or ``folder:PATH``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from budgetnet.common.errors import DataError
from budgetnet.data.arrays import load_arrays
from budgetnet.data.dataset import DataSet, make_dataset
from budgetnet.data.folder import Progress, load_folder
from budgetnet.data.names import check_name, folder_name
from budgetnet.data.split import split


def load_dataset(name: str, *, progress: Progress | None = None) -> DataSet:
    """Load a data set by name.

    Args:
        name: ``digits`` (bundled with scikit-learn), ``cifar10`` or ``cifar10:PATH`` (downloaded to PATH if missing),
            ``folder:PATH``, also with ``,size=32`` and ``,test=0.2`` after it (see `load_folder`), or
            ``arrays:PATH.npz`` (see `load_arrays`). A ``~`` in PATH is expanded.
        progress: called with (decoded images, total images) while an image folder is read.

    Raises:
        DataError: the name is unknown, or the data set is missing, damaged or invalid.
    """
    check_name(name)
    kind, _, where = name.partition(":")
    if kind in ("folder", "arrays"):
        if kind == "arrays":
            return load_arrays(_path(name, where), name=name)
        folder = folder_name(name)
        path = _path(name, folder.path)
        return load_folder(path, name=name, progress=progress, size=folder.size, test=folder.test)
    if name == "digits":
        return load_digits()
    return load_cifar10(name, _path(name, where) if where else _cifar10_folder(name))


def needs_download(name: str) -> bool:
    """Return whether loading the data set of this name requires a download.

    Raises:
        DataError: the path in the name is invalid.
    """
    kind, _, where = name.partition(":")
    if kind != "cifar10":
        return False
    return not ((_path(name, where) if where else _cifar10_folder(name)) / "cifar-10-batches-py").is_dir()


def load_digits() -> DataSet:
    """Load scikit-learn's bundled digits: 1,797 grey images of 8x8 pixels in 10 classes.

    Values from 0 to 16 are scaled to 0 to 255 and rounded. As there is no official test set, a stratified 20 % is used,
    fixed by seed 0: 1,437 training and 360 test images, each in the original order.
    """
    from sklearn.datasets import load_digits as bundled_digits

    values, labels = bundled_digits(return_X_y=True)
    images = np.rint(values.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    parts = split(labels, validation_fraction=0.2, seed=0)
    return make_dataset(
        name="digits",
        train_images=images[parts.train],
        train_labels=labels[parts.train],
        test_images=images[parts.validation],
        test_labels=labels[parts.validation],
        provenance="scikit-learn's bundled digits",
    )


def load_cifar10(name: str, path: Path) -> DataSet:
    """Load CIFAR-10, downloaded by torchvision if it is missing.

    The files are pickles; torchvision verifies the published checksum of each file before loading it.

    Args:
        name: name of the data set, also used in errors.
        path: parent folder of ``cifar-10-batches-py``.

    Raises:
        DataError: the files are missing or damaged and cannot be downloaded.
    """
    from torchvision.datasets import CIFAR10

    try:
        with _quiet():
            train: Any = CIFAR10(path, train=True, download=True)
            test: Any = CIFAR10(path, train=False, download=False)
    except (OSError, RuntimeError, HTTPException) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        source = "cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"
        manual = f"to install it manually, put {source} into {path} and delete any cifar-10-batches-py there"
        raise DataError("data", name, f"cannot be downloaded ({cause}); {manual}") from None
    return make_dataset(
        name=name,
        train_images=train.data,
        train_labels=np.array(train.targets),
        test_images=test.data,
        test_labels=np.array(test.targets),
        class_names=train.classes,
        provenance="original CIFAR-10, checksums verified by torchvision",
        is_original_cifar10=True,
    )


def _path(name: str, where: str) -> Path:
    if "\0" in where:
        raise DataError("data", name, "must not contain a null character")
    try:
        return Path(where).expanduser()
    except RuntimeError:
        raise DataError("data", name, "its home folder does not exist") from None


def _cifar10_folder(name: str) -> Path:
    folder = os.environ.get("BUDGETNET_DATA")
    return _path(name, folder or "~/.cache/budgetnet") / "cifar10"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings about the file format and, outside a terminal, download progress."""
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        # numpy 2.4.0 to 2.4.4 warn about the old format of the pickles.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        # Older versions of torchvision extract the archive, after verifying its checksum, without a filter.
        warnings.filterwarnings("ignore", message=".*filter extracted tar archives", category=DeprecationWarning)
        if not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield
