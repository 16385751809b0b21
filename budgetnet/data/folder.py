"""An image folder, ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*``: listed in order and decoded once.

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
from budgetnet.common.files import exists
from budgetnet.common.formatting import named_few
from budgetnet.data.cache import cache_file, read_cache, write_cache
from budgetnet.data.copies import groups_of_copies
from budgetnet.data.dataset import DataSet, make_dataset
from budgetnet.data.decoding import SUFFIXES, Images, decode_images
from budgetnet.data.split import split

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (images decoded, images in all) from the thread that loads."""

_TEST_NAMES = ("test", "val", "valid", "validation")
"""Names of the folder beside ``train`` that is the test set; of several the first."""
_WHOLE = "."
"""The part of a folder that has no split of its own."""


@dataclass(frozen=True)
class _Listing:
    """The images of a folder before any is opened."""

    class_names: tuple[str, ...]

    files: dict[str, list[str]]
    """Of each part, or of all: each image's path from the folder on."""

    labels: dict[str, list[int]]
    left_out: tuple[str, ...]
    """Files and folders in the folders of classes that are not read."""
    key: str
    """Another one as soon as a file is another."""


def load_folder(
    path: Path,
    *,
    name: str | None = None,
    progress: Progress | None = None,
    size: int | None = None,
    test: float = 0.2,
) -> DataSet:
    """Loads an image folder, from the cache where nothing in it has changed since the last time.

    The folder holds ``train/<class>/*`` and ``test/<class>/*`` (or ``val``, ``valid``, ``validation``). One that only
    holds ``<class>/*`` is split, by class and with copies of an image on one side, fixed by seed 0.

    All images must have the same width and height unless they are scaled. They become one grey channel if all of them
    are grey, red, green and blue otherwise; transparency is dropped. Hidden files are ignored; other files that are not
    images by their ending, and folders in those of classes, are left out with a warning. Links to files are followed. A
    file counts as changed when its name, size or time of change is another.

    The arrays are kept in one file a folder under ``$BUDGETNET_CACHE/folders``, or ``~/.cache/budgetnet/folders``. A
    cache that is damaged is made anew, one that cannot be written is done without.

    Args:
        path: the folder.
        name: what was asked for, if not ``folder:`` and the path; errors name it.
        progress: told how many images are decoded; not called when the cache answers.
        size: side in pixels that each image is scaled to cover and cropped to. Default: as they are.
        test: share of the images that are the test set where the folder has no split of its own.

    Raises:
        DataError: the folder is missing or not laid out so, train and test differ in their classes, or an image is
            corrupt, too large, or of another size than the first.
    """
    name = name or f"folder:{path}"
    listing = _list_folder(name, path, size=size)
    if listing.left_out:
        rule = f"only {', '.join(SUFFIXES)} directly in the folder of a class are read"
        _log.warning("data %s: left out %s: %s", name, named_few(listing.left_out), rule)
    unread = [part for part in _TEST_NAMES if part not in listing.files and _is_folder(path / part)]
    if unread and _WHOLE not in listing.files:
        rule = "not read, as every recipe holds out training images for validation"
        _log.warning("data %s: left out the folder %s: %s", name, named_few(unread), rule)
    cache = cache_file(path)
    dataset = _cached_dataset(name, listing, cache, test=test) if cache else None
    if dataset is not None:
        return dataset
    images = _decode(name, path, listing, progress, size=size)
    dataset = _dataset(name, listing, images, test=test)
    if cache:
        write_cache(cache, key=listing.key, images=images, fingerprint=dataset.fingerprint)
    return dataset


def _cached_dataset(name: str, listing: _Listing, cache: Path, *, test: float) -> DataSet | None:
    """The data set as the cache has it, or None where there is none or it is not what was once put there."""
    cached = read_cache(cache, key=listing.key)
    if cached is None:
        return None
    images, fingerprint = cached
    try:
        dataset = _dataset(name, listing, images, test=test)
    except DataError:
        return None
    return dataset if dataset.fingerprint == fingerprint else None


def _decode(
    name: str, path: Path, listing: _Listing, progress: Progress | None, *, size: int | None
) -> dict[str, Images]:
    """The images of both parts; those of a folder without a split are all in ``train``."""
    files = [file for part in listing.files.values() for file in part]
    images = decode_images(files, root=path, name=name, progress=progress, side=size)
    num_train = len(next(iter(listing.files.values())))
    return {"train": images[:num_train], "test": images[num_train:]}


def _dataset(name: str, listing: _Listing, images: dict[str, Images], *, test: float) -> DataSet:
    provenance = "images from a folder, as declared by its owner"
    labels = [np.array(part, dtype=np.int64) for part in listing.labels.values()]
    parts = [images["train"], images["test"]]
    if _WHOLE in listing.files:
        groups = groups_of_copies(parts[0])
        sides = split(labels[0], validation_fraction=test, seed=0, groups=groups, class_names=listing.class_names)
        parts = [parts[0][side] for side in (sides.train, sides.validation)]
        labels = [labels[0][side] for side in (sides.train, sides.validation)]
        provenance += f"; {100 * test:g}% of them at random are the test set"
    return make_dataset(
        name=name,
        train_images=parts[0].transpose(0, 2, 3, 1),
        train_labels=labels[0],
        test_images=parts[1].transpose(0, 2, 3, 1),
        test_labels=labels[1],
        class_names=listing.class_names,
        provenance=provenance,
    )


def _is_folder(path: Path) -> bool:
    return exists(path) and path.is_dir()


def _parts(path: Path) -> dict[str, Path]:
    """The folders of the parts by name; one part, all of it, where there is neither ``train`` nor a test set."""
    test = next((name for name in _TEST_NAMES if _is_folder(path / name)), _TEST_NAMES[0])
    if _is_folder(path) and not _is_folder(path / "train") and not _is_folder(path / test):
        return {_WHOLE: path}
    return {"train": path / "train", test: path / test}


def _list_folder(name: str, path: Path, *, size: int | None) -> _Listing:
    folders = _parts(path)
    classes = {part: _class_folders(name, folder) for part, folder in folders.items()}
    names = list(folders)
    for here, there in zip(names, names[::-1], strict=True):
        extra = sorted(set(classes[here]) - set(classes[there]))
        if extra:
            rule = f"{' and '.join(names)} must have the same classes, {extra[0]!r} is only in {here}"
            raise DataError("data", name, rule)
    class_names = tuple(classes[names[0]])
    if _WHOLE in folders and not class_names:
        raise DataError("data", name, _LAYOUT)
    digest = hashlib.sha256(f"budgetnet folder 3, size {size}\n".encode())
    files: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    left_out: list[str] = []
    for part, folder in folders.items():
        names = []
        states: list[str] = []
        label_of: list[int] = []
        for label, class_name in enumerate(class_names):
            for file, state in _image_files(name, folder / class_name, left_out):
                names.append(file)
                states.append(state)
                label_of.append(label)
        if not names:
            what = "the folders of classes" if part == _WHOLE else part
            raise DataError("data", name, f"{what} must hold at least one image ({', '.join(SUFFIXES)})")
        # By name alone: sorting keeps the order of those that are equal, and they come class by class.
        order = sorted(range(len(names)), key=names.__getitem__)
        inside = "" if part == _WHOLE else f"{part}/"
        files[part] = [f"{inside}{class_names[label_of[number]]}/{names[number]}" for number in order]
        labels[part] = [label_of[number] for number in order]
        lines = [f"{file}\0{states[number]}\n" for file, number in zip(files[part], order, strict=True)]
        digest.update(os.fsencode("".join(lines)))
    return _Listing(
        class_names=class_names, files=files, labels=labels, left_out=tuple(left_out), key=digest.hexdigest()
    )


_LAYOUT = "must hold train/<class>/ and test/<class>/, or <class>/ alone"


def _class_folders(name: str, folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        raise DataError("data", name, f"{_LAYOUT}, but {folder} is missing") from None
    except OSError as error:
        raise DataError("data", name, f"{folder} cannot be read: {error.strerror}") from None


def _with_count(entry: os.DirEntry[str]) -> str:
    """The name of what is not read, and of a folder how many images it holds."""
    if not entry.is_dir():
        return entry.name
    files = [file for _, _, names in os.walk(entry.path) for file in names]
    count = sum(file.lower().endswith(SUFFIXES) and not file.startswith(".") for file in files)
    return f"{entry.name} ({count:,} {'image' if count == 1 else 'images'})"


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
                    left_out.append(f"{folder.parent.name}/{folder.name}/{_with_count(entry)}")
                else:
                    yield entry.name, f"{status.st_size}\0{status.st_mtime_ns}"
    except OSError as error:
        raise DataError("data", name, f"{error.filename or folder} cannot be read: {error.strerror}") from None
