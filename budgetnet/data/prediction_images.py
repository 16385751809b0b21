"""Images for prediction, of any size: files in common formats, folders of them, and arrays."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import InputError, is_lack_of_resources
from budgetnet.common.files import exists
from budgetnet.common.formatting import named_few
from budgetnet.data.arrays import read_arrays
from budgetnet.data.dataset import checked_images
from budgetnet.data.decoding import (
    FORMATS,
    SUFFIXES,
    Images,
    cause,
    converted,
    deep_mode,
    doubtful_sizes_refused,
    fitted,
    upright,
)

_FIELD = "IMAGE"
_KEY = "images"
"""Name of the array of images in a ``.npz`` file of several arrays."""
_OF_ONE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
"""Errors of the system that say nothing about other files."""


class InputImage(NamedTuple):
    """An image for prediction, before it is read."""

    name: str
    """Path of its file, with the index in square brackets for an image of an array."""
    source: Path | Images
    """Path of its file, or uint8 (channels, height, width)."""


def list_images(paths: Sequence[Path]) -> list[InputImage]:
    """List images by the paths that were given, in their order.

    Args:
        paths: image files; folders, of which all image files are taken, in subfolders too, by name; and ``.npz`` files
            with an array ``images`` or of a single array, uint8 (n, height, width) or (n, height, width, 1 or 3); or
            patterns of these, such as ``photos/*.png`` and ``**/*.jpg``. Hidden files are ignored unless they are
            named, or matched by a part of a pattern that begins with a dot.

    Raises:
        InputError: a pattern is invalid or matches nothing, a folder holds no image file, or a ``.npz`` file is
            missing, damaged or not as described.
    """
    return [image for path in paths for image in _listed(path)]


def list_array(images: npt.NDArray[Any], *, name: str = "") -> list[InputImage]:
    """List the images of an array.

    Args:
        images: uint8 (n, height, width) or (n, height, width, 1 or 3).
        name: path of its file; default: none, so that the index alone is the name.

    Raises:
        InputError: the array is not as described.
    """
    checked = checked_images(images, field=_FIELD, name=name or "array", array=_KEY)
    return [InputImage(f"{name}[{index}]" if name else str(index), image) for index, image in enumerate(checked)]


def load_images(images: Sequence[InputImage], *, input_shape: tuple[int, int, int]) -> list[Images | InputError]:
    """Read images as inputs of a network, in one thread a core.

    Files are read as those of a folder are: rotated by their EXIF orientation, their transparency dropped, of an
    animation only the first frame. Each image is scaled to cover the input size and centre-cropped; an image of the
    input size keeps its pixels.

    Args:
        images: images as listed.
        input_shape: channels (1 or 3), height and width of the network's inputs.

    Returns:
        uint8 (channels, height, width) for each image, or the error if its file cannot be opened, is not a valid image,
        has too many pixels or more than 8 bits a channel.
    """
    # Warnings are ignored, except those about image size, which are errors. Filters belong to the process, so they are
    # set around the threads.
    with (
        warnings.catch_warnings(action="ignore"),
        doubtful_sizes_refused(),
        ThreadPoolExecutor(min(len(images), available_cores()) or 1, thread_name_prefix="decode") as threads,
    ):
        return list(threads.map(partial(_load, input_shape=input_shape), images))


def _listed(path: Path) -> Iterator[InputImage]:
    if any(mark in str(path) for mark in "*?[") and not exists(path):
        for file in _matches(path):
            yield from _listed(file)
    elif exists(path) and path.is_dir():
        files = sorted(_image_files(path))
        if not files:
            raise InputError(_FIELD, str(path), f"the folder holds no image file ({', '.join(SUFFIXES)})")
        yield from (InputImage(_printable(file), file) for file in files)
    elif path.suffix.lower() == ".npz":
        name = str(path)
        arrays = read_arrays(path, field=_FIELD, name=name, check_keys=partial(_check_keys, name))
        yield from list_array(arrays.get(_KEY, next(iter(arrays.values()))), name=_printable(path))
    else:
        yield InputImage(_printable(path), path)


def _matches(pattern: Path) -> list[Path]:
    dotted = [part for part in pattern.parts if part.startswith(".")]

    def is_hidden(file: Path) -> bool:
        hidden = (part for part in file.parts if part.startswith("."))
        return not all(any(fnmatchcase(part, each) for each in dotted) for part in hidden)

    try:
        found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        rule = f"is not a valid pattern: {str(error).removeprefix('Invalid pattern: ')}"
        raise InputError(_FIELD, str(pattern), rule) from None
    except OSError as error:
        raise InputError(_FIELD, str(pattern), f"cannot be read: {error.strerror}") from None
    shown = [file for file in found if not is_hidden(file)]
    if not shown:
        rule = "no file matches the pattern" if not found else "only hidden files match the pattern"
        raise InputError(_FIELD, str(pattern), rule)
    return shown


def _image_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (
            Path(parent, name) for name in files if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        )


def _check_keys(name: str, keys: list[str]) -> None:
    if _KEY not in keys and len(keys) != 1:
        found = named_few(keys) or "nothing"
        raise InputError(_FIELD, name, f"must contain an array {_KEY}, or a single array, not {found}")


def _printable(path: Path) -> str:
    """Return the path as text that can be written; bytes of names that are no text are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _load(image: InputImage, *, input_shape: tuple[int, int, int]) -> Images | InputError:
    channels, height, width = input_shape
    mode = "L" if channels == 1 else "RGB"
    try:
        if isinstance(image.source, Path):
            picture = _opened(image.source, mode)
        elif image.source.shape == input_shape:
            return image.source
        else:
            pixels = image.source.transpose(1, 2, 0)
            picture = converted(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), mode)
        array = np.asarray(fitted(picture, (width, height)))
    except InputError as error:
        return error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return InputError(_FIELD, image.name, "has too many pixels to be decoded safely")
    except Exception as error:  # decoders raise many kinds of exceptions for damaged files
        if isinstance(error, OSError) and error.errno in _OF_ONE_FILE:
            return InputError(_FIELD, image.name, f"cannot be read: {error.strerror}")
        if is_lack_of_resources(error):
            raise
        return InputError(_FIELD, image.name, f"is not a valid image: {cause(error)}")
    return array[np.newaxis] if channels == 1 else array.transpose(2, 0, 1)


def _opened(path: Path, mode: str) -> Image.Image:
    """Open an image file, apply its orientation and convert it to Pillow's mode ``L`` or ``RGB``."""
    if not path.is_file():  # opening a pipe would block
        raise InputError(_FIELD, str(path), "no such file" if not path.exists() else "must be a file")
    with Image.open(path, formats=FORMATS) as opened:
        if depth := deep_mode(opened):
            raise InputError(_FIELD, str(path), f"must have 8 bits a channel, not Pillow's mode {depth}")
        # Read before the file is closed; Pillow waits until the pixels are needed.
        opened.load()
        return converted(upright(opened), mode)
