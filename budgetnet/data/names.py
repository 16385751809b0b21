"""Names of data sets."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import NamedTuple

from budgetnet.common.errors import DataError
from budgetnet.common.files import exists

DOWNLOADS = ("cifar10", "cifar100", "mnist", "fashion-mnist", "kmnist", "svhn", "stl10")
"""Data sets that torchvision downloads; each also with ``:PATH``."""

NAMES = f"digits, {', '.join(DOWNLOADS)}, NAME:PATH for one of these in a folder, folder:PATH or arrays:PATH.npz"
"""Forms of names, for help and errors."""

MAX_SIDE = 1024
"""Largest side of images that are scaled, in pixels."""


class FolderName(NamedTuple):
    """What the name of an image folder says."""

    path: str
    size: int | None = None
    """Side to which images are scaled and cropped, in pixels; None: as they are."""
    test: float = 0.2
    """Share of the images that are the test set where the folder has no split of its own."""


_OPTION = re.compile(r"(?P<rest>.*),(?P<key>size|test)=(?P<value>[^,]*)")


def folder_name(name: str) -> FolderName:
    """Read the name of an image folder: ``folder:PATH``, with ``,size=32`` or ``,test=0.1`` after it.

    Raises:
        DataError: there is no path, an option is given twice, or its value is invalid.
    """
    rest, options = name.partition(":")[2], dict[str, str]()
    while match := _OPTION.fullmatch(rest):
        rest, key = match["rest"], match["key"]
        if key in options:
            raise DataError("data", name, f"gives {key} twice")
        options[key] = match["value"]
    if not rest:
        raise DataError("data", name, "must name a folder before its options")
    found = FolderName(rest)
    if "size" in options:
        if not re.fullmatch(r"[1-9]\d{0,3}", options["size"], re.ASCII) or int(options["size"]) > MAX_SIDE:
            raise DataError("data", name, f"size must be a whole number of pixels from 1 to {MAX_SIDE}")
        found = found._replace(size=int(options["size"]))
    if "test" in options:
        if not re.fullmatch(r"0?\.\d{1,6}", options["test"]) or not float(options["test"]):
            raise DataError("data", name, "test must be a share between 0 and 1, such as 0.2")
        found = found._replace(test=float(options["test"]))
    return found


def check_name(name: str) -> None:
    """Check the form of a data set's name, without looking for the data.

    Raises:
        DataError: it is not the name of a data set; the error suggests one, for a path the name of that path.
    """
    kind, colon, where = name.partition(":")
    if kind == "folder" and where:
        folder_name(name)
    if name == "digits" or (kind in ("folder", "arrays") and where) or (kind in DOWNLOADS and (where or not colon)):
        return
    near = difflib.get_close_matches(kind.strip().lower(), ("digits", *DOWNLOADS, "folder", "arrays"), n=1)
    hint = f"; did you mean {near[0]}?" if near and near[0] != kind else ""
    if not colon and name.strip() and "\0" not in name:
        path = Path(name)
        if path.suffix == ".npz":
            hint = f"; did you mean arrays:{name}?"
        elif exists(path) and path.is_dir() and not near:
            hint = f"; did you mean folder:{name}?"
    raise DataError("data", name, f"must be {NAMES}{hint}")


def home_path(name: str, where: str) -> Path:
    """Return a path of a data set's name, with a ``~`` expanded.

    Raises:
        DataError: the path has a null character, or the home folder does not exist.
    """
    if "\0" in where:
        raise DataError("data", name, "must not contain a null character")
    try:
        return Path(where).expanduser()
    except RuntimeError:
        raise DataError("data", name, "its home folder does not exist") from None
