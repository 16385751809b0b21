"""An image folder, ``train/<class>/*`` and ``test/<class>/*``, listed in a fixed order and decoded once.

The order is by file name first, then by class: ``00000.png``, ``00001.png`` and so on come in that order
whichever class they are in. So a data set written out as numbered files gives back the arrays it was written from.
Names are compared as text: numbers need leading zeros.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from budgetnet.common.errors import DataError
from budgetnet.common.formatting import named_few
from budgetnet.data.cache import cache_file, read_cache, write_cache
from budgetnet.data.dataset import DataSet, make_dataset
from budgetnet.data.decoding import Images, decode_images

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (images decoded, images in all) from the thread that loads."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings of the files taken for images, in lower or upper case; others are left alone."""

_PARTS = ("train", "test")


@dataclass(frozen=True)
class _Listing:
    """The images of a folder before any is opened."""

    class_names: tuple[str, ...]

    files: dict[str, list[str]]
    """Of ``train`` and ``test``: each image's path from the folder on."""

    labels: dict[str, list[int]]
    left_out: tuple[str, ...]
    """Files and folders in the folders of classes that are not read."""
    key: str
    """Another one as soon as a file is another."""


def load_folder(path: Path, *, name: str | None = None, progress: Progress | None = None) -> DataSet:
    """Loads an image folder, from the cache where nothing in it has changed since the last time.

    All images must have the same width and height. They become one grey channel if all of them are grey, red, green and
    blue otherwise; transparency is dropped. Hidden files are ignored; other files that are not images by their ending,
    and folders in those of classes, are left out with a warning. Links to files are followed. A file counts as changed
    when its name, size or time of change is another.

    The arrays are kept in one file a folder under ``$BUDGETNET_CACHE/folders``, or ``~/.cache/budgetnet/folders``. A
    cache that is damaged is made anew, one that cannot be written is done without.

    Args:
        path: the folder that holds ``train`` and ``test``.
        name: what was asked for, if not ``folder:`` and the path; errors name it.
        progress: told how many images are decoded; not called when the cache answers.

    Raises:
        DataError: the folder is missing or not laid out so, train and test differ in their classes, or an image is
            corrupt, too large, or of another size than the first.
    """
    name = name or f"folder:{path}"
    listing = _list_folder(name, path)
    if listing.left_out:
        rule = f"only {', '.join(SUFFIXES)} directly in the folder of a class are read"
        _log.warning("data %s: left out %s: %s", name, named_few(listing.left_out), rule)
    cache = cache_file(path)
    dataset = _cached_dataset(name, listing, cache) if cache else None
    if dataset is not None:
        return dataset
    images = _decode(name, path, listing, progress)
    dataset = _dataset(name, listing, images)
    if cache:
        write_cache(cache, key=listing.key, images=images, fingerprint=dataset.fingerprint)
    return dataset


def _cached_dataset(name: str, listing: _Listing, cache: Path) -> DataSet | None:
    """The data set as the cache has it, or None where there is none or it is not what was once put there."""
    cached = read_cache(cache, key=listing.key)
    if cached is None:
        return None
    images, fingerprint = cached
    try:
        dataset = _dataset(name, listing, images)
    except DataError:
        return None
    return dataset if dataset.fingerprint == fingerprint else None


def _decode(name: str, path: Path, listing: _Listing, progress: Progress | None) -> dict[str, Images]:
    files = [file for part in _PARTS for file in listing.files[part]]
    images = decode_images(files, root=path, name=name, progress=progress)
    num_train = len(listing.files["train"])
    return {"train": images[:num_train], "test": images[num_train:]}


def _dataset(name: str, listing: _Listing, images: dict[str, Images]) -> DataSet:
    return make_dataset(
        name=name,
        train_images=images["train"].transpose(0, 2, 3, 1),
        train_labels=np.array(listing.labels["train"], dtype=np.int64),
        test_images=images["test"].transpose(0, 2, 3, 1),
        test_labels=np.array(listing.labels["test"], dtype=np.int64),
        class_names=listing.class_names,
        provenance="images from a folder, as declared by its owner",
    )


def _list_folder(name: str, path: Path) -> _Listing:
    classes = {part: _class_folders(name, path / part) for part in _PARTS}
    for here, there in (_PARTS, _PARTS[::-1]):
        extra = sorted(set(classes[here]) - set(classes[there]))
        if extra:
            rule = f"train and test must have the same classes, {extra[0]!r} is only in {here}"
            raise DataError("data", name, rule)
    class_names = tuple(classes["train"])
    digest = hashlib.sha256(b"budgetnet folder 2\n")
    files: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    left_out: list[str] = []
    for part in _PARTS:
        names: list[str] = []
        states: list[str] = []
        label_of: list[int] = []
        for label, class_name in enumerate(class_names):
            for file, state in _image_files(name, path / part / class_name, left_out):
                names.append(file)
                states.append(state)
                label_of.append(label)
        if not names:
            raise DataError("data", name, f"{part} must hold at least one image ({', '.join(SUFFIXES)})")
        # By name alone: sorting keeps the order of those that are equal, and they come class by class.
        order = sorted(range(len(names)), key=names.__getitem__)
        files[part] = [f"{part}/{class_names[label_of[number]]}/{names[number]}" for number in order]
        labels[part] = [label_of[number] for number in order]
        lines = [f"{file}\0{states[number]}\n" for file, number in zip(files[part], order, strict=True)]
        digest.update(os.fsencode("".join(lines)))
    return _Listing(
        class_names=class_names, files=files, labels=labels, left_out=tuple(left_out), key=digest.hexdigest()
    )


def _class_folders(name: str, folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        raise DataError("data", name, f"must hold train/<class>/ and test/<class>/, but {folder} is missing") from None
    except OSError as error:
        raise DataError("data", name, f"{folder} cannot be read: {error.strerror}") from None


def _image_files(name: str, folder: Path, left_out: list[str]) -> Iterator[tuple[str, str]]:
    """The image files of a class, in no order, each with a text that is another one when the file has changed.

    What is not read is added to ``left_out``, hidden files excepted.

    It keeps no more of a file than the two texts: tens of thousands of status objects are slow to make room for.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                status = entry.stat() if entry.name.lower().endswith(SUFFIXES) else None
                if status is None or not stat.S_ISREG(status.st_mode):
                    left_out.append(f"{folder.parent.name}/{folder.name}/{entry.name}")
                else:
                    yield entry.name, f"{status.st_size}\0{status.st_mtime_ns}"
    except OSError as error:
        raise DataError("data", name, f"{error.filename or folder} cannot be read: {error.strerror}") from None
