"""Image files to one array, in parallel, without ever holding more than that array and a few images."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from budgetnet.errors import DataError

Images = npt.NDArray[np.uint8]

# Named, because Pillow otherwise goes by content, and would hand a disguised PostScript file to an interpreter.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")

_GREY_MODES = ("1", "L")
_DEEP_MODES = ("I", "F")  # and I;16 in its variants: more than 8 bits a channel, which Pillow would cut off
_CHUNK = 256

_SMALL = 64 * 64
"""Pixels below which opening a file costs more than decoding it. Threads then only wait for the interpreter's lock."""


class _NotGrey(Exception):  # noqa: N818 - a turn in the reading, not an error
    """An image has colour where all before were grey."""


def decode_images(
    files: Sequence[str], *, root: Path, name: str, progress: Callable[[int, int], None] | None = None
) -> Images:
    """Decodes image files of one common size.

    Args:
        files: at least one image file, as a path from the root on.
        root: the folder the files lie in.
        name: what was asked for; errors name it.
        progress: called with (images decoded, images in all) from the calling thread.

    Returns:
        uint8 (n, channels, height, width): one channel if all images are grey, else red, green and blue.

    Raises:
        DataError: a file is no sound image, is larger than Pillow deems safe, has more than 8 bits a channel, or has
            another size than the first; or there is not enough memory for all of them.
    """
    reader = _Reader(root=root, name=name)
    # Pillow warns of images it finds doubtfully large and refuses larger ones; here both are refused. Warning filters
    # belong to the process, so this is set around the threads, not in them.
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with reader.opened(files[0]) as first:
            size, grey = first.size, first.mode in _GREY_MODES
        if grey:
            with contextlib.suppress(_NotGrey):
                return _decode(files, reader, size=size, mode="L", progress=progress)
        return _decode(files, reader, size=size, mode="RGB", progress=progress)


def _decode(
    files: Sequence[str],
    reader: _Reader,
    *,
    size: tuple[int, int],
    mode: str,
    progress: Callable[[int, int], None] | None,
) -> Images:
    width, height = size
    shape = (len(files), len(mode), height, width)
    try:
        images = np.empty(shape, dtype=np.uint8)
    except MemoryError:
        rule = f"{len(files):,} images of {width}x{height} do not fit into memory; make them smaller"
        raise DataError("data", reader.name, rule) from None

    def decode_chunk(start: int) -> int:
        stop = min(start + _CHUNK, len(files))
        for position in range(start, stop):
            images[position] = reader.pixels(files[position], first=files[0], size=size, mode=mode)
        return stop

    max_workers = 1 if width * height < _SMALL else os.cpu_count()
    workers = ThreadPoolExecutor(max_workers=max_workers, thread_name_prefix="decode")
    try:
        for decoded in workers.map(decode_chunk, range(0, len(files), _CHUNK)):
            if progress:
                progress(decoded, len(files))
    finally:
        workers.shutdown(cancel_futures=True)
    return images


class _Reader:
    """Opens one image at a time and turns whatever goes wrong into an error that names the file."""

    def __init__(self, *, root: Path, name: str) -> None:
        self.root = root
        self.name = name

    def error(self, file: str, problem: str) -> DataError:
        return DataError("data", self.name, f"{file} {problem}")

    def opened(self, file: str) -> Image.Image:
        """The image with its header read."""
        try:
            return Image.open(self.root / file, formats=_FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise self.error(file, "has too many pixels to be decoded safely") from None
        except Exception as error:  # decoders answer broken bytes with nearly any exception
            raise self.error(file, f"is not a sound image: {_cause(error)}") from None

    def pixels(self, file: str, *, first: str, size: tuple[int, int], mode: str) -> Images:
        """The pixels (channels, height, width) of an image, whose size must be that of the first."""
        with self.opened(file) as image:
            if image.size != size:
                sizes = f"{image.width}x{image.height}, but {first} is {size[0]}x{size[1]}"
                raise self.error(file, f"is {sizes}; all images must have the same size")
            if image.mode.startswith(_DEEP_MODES):
                raise self.error(file, f"must have 8 bits a channel, not Pillow's mode {image.mode}")
            if mode == "L" and image.mode not in _GREY_MODES:
                raise _NotGrey
            try:
                array = np.asarray(_converted(image, mode))
            except Exception as error:  # as above
                raise self.error(file, f"is not a sound image: {_cause(error)}") from None
        return array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert(mode)  # the direct way warns
    return image.convert(mode)


def _cause(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text and not isinstance(error, UnidentifiedImageError) else "its content is of no known kind"
