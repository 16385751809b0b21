"""Data sets that torchvision downloads: ``cifar10``, ``mnist`` and others."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from budgetnet.common.errors import DataError
from budgetnet.common.files import exists
from budgetnet.data.dataset import DataSet, make_dataset
from budgetnet.data.names import home_path

_IDX_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"


class _Download(NamedTuple):
    """Where a data set's files are, and how torchvision returns them."""

    title: str
    reader: str
    """Name of torchvision's class."""
    folder: str
    """Folder of the files within the data set's; empty if they lie directly in it."""
    known_file: str
    """One of the files, by which a folder of files is recognised."""
    source: str
    """What to install by hand, and from where."""
    is_archive: bool = False
    """Whether `source` is an archive, which torchvision extracts."""
    by_split: bool = False
    """Whether the class takes ``split="train"`` instead of ``train=True``, and returns channels first."""
    is_verified: bool = True
    """Whether torchvision verifies the files each time, not only when it downloads them."""


_DOWNLOADS = {
    "cifar10": _Download(
        "CIFAR-10",
        "CIFAR10",
        "cifar-10-batches-py",
        "data_batch_1",
        "cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html",
        is_archive=True,
    ),
    "cifar100": _Download(
        "CIFAR-100",
        "CIFAR100",
        "cifar-100-python",
        "train",
        "cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html",
        is_archive=True,
    ),
    "mnist": _Download("MNIST", "MNIST", "MNIST/raw", "train-images-idx3-ubyte", _IDX_FILES, is_verified=False),
    "fashion-mnist": _Download(
        "Fashion-MNIST", "FashionMNIST", "FashionMNIST/raw", "train-images-idx3-ubyte", _IDX_FILES, is_verified=False
    ),
    "kmnist": _Download(
        "Kuzushiji-MNIST", "KMNIST", "KMNIST/raw", "train-images-idx3-ubyte", _IDX_FILES, is_verified=False
    ),
    "svhn": _Download(
        "SVHN",
        "SVHN",
        "",
        "train_32x32.mat",
        "train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers",
        by_split=True,
    ),
    "stl10": _Download(
        "STL-10",
        "STL10",
        "stl10_binary",
        "train_X.bin",
        "stl10_binary.tar.gz from https://cs.stanford.edu/~acoates/stl10",
        is_archive=True,
        by_split=True,
    ),
}


def load_download(name: str) -> DataSet:
    """Load a data set by torchvision, which downloads it if it is missing.

    Pickles are only read after torchvision has verified their published checksums. A folder that directly contains the
    files is read as it is, and never downloaded to.

    Args:
        name: one of `budgetnet.data.names.DOWNLOADS`, with ``:PATH`` for the folder with the files or around theirs.
            Default: a folder of its name in ``$BUDGETNET_DATA``, or in ``~/.cache/budgetnet``.

    Raises:
        DataError: the files are damaged, or are missing and cannot be downloaded.
    """
    download, path = _DOWNLOADS[name.partition(":")[0]], _folder(name)
    is_flat = _is_flat(download, path)
    reader = _reader(download, is_flat=is_flat)
    try:
        with _quiet():
            parts: list[Any] = []
            for part in ("train", "test"):
                which = {"split": part} if download.by_split else {"train": part == "train"}
                # One archive has both parts, and is verified once.
                wanted = not is_flat and (part == "train" or not download.is_archive)
                parts.append(reader(path, download=wanted, **which))
    except (OSError, RuntimeError, HTTPException, ValueError, AssertionError) as error:
        missing = not is_flat and isinstance(error, (OSError, RuntimeError, HTTPException))
        raise DataError("data", name, _rule(download, path, error, can_download=missing)) from None
    train, test = parts
    class_names = getattr(train, "classes", None)
    checked = ", checksums verified by torchvision" if download.is_verified else ", read by torchvision"
    return make_dataset(
        name=name,
        train_images=_images(train, download),
        train_labels=_labels(train),
        test_images=_images(test, download),
        test_labels=_labels(test),
        # MNIST's are such as "7 - seven".
        class_names=class_names and [each.partition(" - ")[0] for each in class_names],
        provenance=f"original {download.title}{checked}",
        is_original_cifar10=reader.__name__ == "CIFAR10",
    )


def needs_download(name: str) -> bool:
    """Return whether loading the data set of this name requires a download.

    Raises:
        DataError: the path in the name is invalid.
    """
    download = _DOWNLOADS.get(name.partition(":")[0])
    if download is None:
        return False
    path = _folder(name)
    return not _is_flat(download, path) and not exists(path / download.folder / download.known_file)


def _folder(name: str) -> Path:
    kind, _, where = name.partition(":")
    return home_path(name, where) if where else home_path(name, os.environ.get("BUDGETNET_DATA") or _CACHE) / kind


_CACHE = "~/.cache/budgetnet"


def _is_flat(download: _Download, path: Path) -> bool:
    """Return whether a folder directly contains the files, where torchvision expects a folder around theirs."""
    return bool(download.folder) and not exists(path / download.folder) and exists(path / download.known_file)


def _reader(download: _Download, *, is_flat: bool) -> Any:
    """Return torchvision's class, for files that lie directly in the folder a subclass of the same name."""
    from torchvision import datasets

    reader = getattr(datasets, download.reader)
    if not is_flat:
        return reader
    where = {"base_folder": ""} if hasattr(reader, "base_folder") else {"raw_folder": property(lambda self: self.root)}
    return type(download.reader, (reader,), where)


def _images(part: Any, download: _Download) -> Any:
    images = np.asarray(part.data)
    return images.transpose(0, 2, 3, 1) if download.by_split else images


def _labels(part: Any) -> Any:
    # STL-10's are bytes.
    return np.asarray(part.targets if hasattr(part, "targets") else part.labels).astype(np.int64)


def _rule(download: _Download, path: Path, error: Exception, *, can_download: bool) -> str:
    cause = " ".join(str(error).split()) or type(error).__name__
    if not can_download:
        return f"cannot be read ({cause}); a file in {path} is missing or damaged"
    where = path if download.is_archive else path / download.folder
    manual = f"to install it manually, put {download.source} into {where}"
    if download.is_archive:
        manual += f" and delete any {download.folder} there"
    return f"cannot be downloaded ({cause}); {manual}"


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
