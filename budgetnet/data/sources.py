"""Data sources: load a data set by name, such as ``digits``, ``cifar10`` or ``folder:PATH``."""

from __future__ import annotations

import numpy as np

from budgetnet.data.arrays import load_arrays
from budgetnet.data.dataset import DataSet, make_dataset
from budgetnet.data.downloads import load_download
from budgetnet.data.folder import Progress, load_folder
from budgetnet.data.names import check_name, folder_name, home_path
from budgetnet.data.split import split


def load_dataset(name: str, *, progress: Progress | None = None) -> DataSet:
    """Load a data set by name.

    Args:
        name: ``digits`` (bundled with scikit-learn); ``cifar10`` or another of `budgetnet.data.names.DOWNLOADS`, also
            with ``:PATH`` (see `load_download`); ``folder:PATH``, also with ``,size=32`` and ``,test=0.2`` after it
            (see `load_folder`); or ``arrays:PATH.npz`` (see `load_arrays`). A ``~`` in PATH is expanded.
        progress: called with (decoded images, total images) while an image folder is read.

    Raises:
        DataError: the name is unknown, or the data set is missing, damaged or invalid.
    """
    check_name(name)
    kind, _, where = name.partition(":")
    if kind == "arrays":
        return load_arrays(home_path(name, where), name=name)
    if kind == "folder":
        folder = folder_name(name)
        path = home_path(name, folder.path)
        return load_folder(path, name=name, progress=progress, size=folder.size, test=folder.test)
    return load_digits() if name == "digits" else load_download(name)


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
