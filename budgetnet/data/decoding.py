"""Image files to one array, without ever holding more than that array and a few images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import DataError, is_out_of_memory
from budgetnet.common.formatting import named_few

Images = npt.NDArray[np.uint8]

_CHUNK = 256
"""Images that one thread decodes at a time."""

_SMALL = 64 * 64
"""Pixels below which opening a file costs more than decoding it. Threads then only wait for the interpreter's lock."""

# Named, because Pillow otherwise goes by content, and would hand a disguised PostScript file to an interpreter.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""Formats of image files, recognised by content."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings of the files of a folder that are taken for images, in lower or upper case; others are left alone."""

_GREY_MODES = ("1", "L", "LA", "La")
"""Pillow's modes of grey images; the last two are with transparency, of which the very last is multiplied by it."""


class _UnreadableError(Exception):
    """An image cannot be decoded; the message names the file and says what is wrong with it."""


class _UnusableError(Exception):
    """The images cannot be read as they are asked for, although each of them may be sound."""


class _NotGrey(Exception):  # noqa: N818 - a turn in the reading, not an error
    """An image has colour where all before were grey."""


def decode_images(
    files: Sequence[str],
    *,
    root: Path,
    name: str,
    progress: Callable[[int, int], None] | None = None,
    side: int | None = None,
) -> Images:
    """Decode image files of one common size: large ones in one thread a core, as Pillow frees the interpreter's lock.

    Args:
        files: at least one image file, as a path from the root on.
        root: the folder the files lie in.
        name: what was asked for; errors name it.
        progress: called with (images decoded, images in all) from the calling thread.
        side: side in pixels that each image is scaled to cover and cropped to, as for a prediction. Default: images
            keep their size, which must be the same.

    Returns:
        uint8 (n, channels, height, width): one channel if all images are grey, else red, green and blue.

    Raises:
        DataError: files are no sound images, are larger than Pillow deems safe or have more than 8 bits a channel, of
            which the first few are named; or a file has another size than the first, or there is not enough memory for
            all of them.
    """
    folder = os.fspath(root)
    try:
        with doubtful_sizes_refused():
            first, size, grey = _first_sound(folder, files)
            try:
                return _decode(files, folder, first, size, "L" if grey else "RGB", progress, side)
            except _NotGrey:
                return _decode(files, folder, first, size, "RGB", progress, side)
    except _UnusableError as error:
        raise DataError("data", name, str(error)) from None


def _first_sound(root: str, files: Sequence[str]) -> tuple[str, tuple[int, int], bool]:
    """Return name and size of the first image that can be opened, and whether it is grey."""
    faults = []
    for file in files:
        try:
            with _opened(root, file) as opened:
                image = _upright(opened, file)
                return file, image.size, image.mode in _GREY_MODES
        except _UnreadableError as error:
            faults.append(str(error))
    raise _summary(faults)


def _summary(faults: Sequence[str]) -> _UnusableError:
    """Return one error for all files that cannot be decoded."""
    if len(faults) == 1:
        return _UnusableError(faults[0])
    return _UnusableError(f"{len(faults):,} files cannot be read: {named_few(faults)}")


def _decode(
    files: Sequence[str],
    root: str,
    first: str,
    size: tuple[int, int],
    mode: str,
    progress: Callable[[int, int], None] | None,
    side: int | None,
) -> Images:
    width, height = size if side is None else (side, side)
    try:
        images = np.empty((len(files), len(mode), height, width), dtype=np.uint8)
    except MemoryError:
        rule = f"{len(files):,} images of {width}x{height} do not fit into memory; make them smaller"
        raise _UnusableError(rule) from None
    faults: dict[int, str] = {}

    def decode_chunk(start: int) -> int:
        stop = min(start + _CHUNK, len(files))
        for position in range(start, stop):
            try:
                images[position] = _pixels(root, files[position], mode, size, first, side)
            except _UnreadableError as error:
                faults[position] = str(error)
        return stop

    # Interrupted, or at an image of another size, `map` cancels what has not begun.
    with ThreadPoolExecutor(
        1 if size[0] * size[1] < _SMALL else available_cores(), thread_name_prefix="decode"
    ) as threads:
        for decoded in threads.map(decode_chunk, range(0, len(files), _CHUNK)):
            if progress:
                progress(decoded, len(files))
    if faults:
        raise _summary([faults[position] for position in sorted(faults)])
    return images


def _pixels(root: str, file: str, mode: str, size: tuple[int, int], first: str, side: int | None) -> Images:
    """An image as (channels, height, width) in Pillow's mode ``L`` or ``RGB``.

    Raises:
        _UnreadableError: the file is no sound image, or not one of 8 bits a channel.
        _UnusableError: the image has another size.
        _NotGrey: grey is wanted, and the image has colour.
    """
    with _opened(root, file) as opened:
        depth = deep_mode(opened)
        image = _upright(opened, file)
        if side is None and image.size != size:
            sizes = f"{image.width}x{image.height}, but {first} is {size[0]}x{size[1]}"
            hint = "all images must have the same size; to scale and crop them: folder:PATH,size=32"
            raise _UnusableError(f"{file} is {sizes}; {hint}")
        if depth:
            raise _UnreadableError(f"{file} must have 8 bits a channel, not Pillow's mode {depth}")
        if mode == "L" and image.mode not in _GREY_MODES:
            raise _NotGrey
        try:
            made = converted(image, mode)
            array = np.asarray(made if side is None else fitted(made, (side, side)))
        except Exception as error:  # decoders answer broken bytes with nearly any exception
            raise _fault_of(file, error) from None
    return array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1)


def _upright(image: Image.Image, file: str) -> Image.Image:
    try:
        return upright(image)
    except Exception as error:  # as above
        raise _fault_of(file, error) from None


@contextmanager
def doubtful_sizes_refused() -> Iterator[None]:
    """Refuse images that Pillow would only warn of as doubtfully large, besides the larger ones that it refuses itself.

    Warning filters belong to the process, so this is set around threads, not in them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _opened(root: str, file: str) -> Image.Image:
    """The image with its header read."""
    try:
        # A path as text: with tens of thousands of small files, path objects are a tenth of the whole time.
        return Image.open(f"{root}/{file}", formats=FORMATS)
    except Exception as error:  # as above
        raise _fault_of(file, error) from None


def _fault_of(file: str, error: Exception) -> _UnreadableError:
    """Return an error that names the file; raise a lack of memory as it is, which is no fault of the file."""
    if is_out_of_memory(error):
        raise error
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _UnreadableError(f"{file} has too many pixels to be decoded safely")
    return _UnreadableError(f"{file} is not a sound image: {cause(error)}")


def upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says; the image itself where it has none."""
    return ImageOps.exif_transpose(image) if "exif" in image.info else image


def deep_mode(image: Image.Image) -> str | None:
    """Return Pillow's mode of an opened image with more than 8 bits a channel, which Pillow may cut off; else None."""
    if image.mode.startswith(("I", "F")):
        return image.mode
    # Of colours with 16 bits Pillow keeps the upper 8; only what it decodes tells.
    modes = [
        str(each)
        for tile in getattr(image, "tile", ())
        for each in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))
    ]
    return next((mode for mode in modes if ";16" in mode), None)


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the image scaled to cover a size (width, height) and cropped to it around the centre.

    An image of this size keeps its pixels. Bilinear interpolation does not overshoot, unlike bicubic.
    """
    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def converted(image: Image.Image, mode: str) -> Image.Image:
    """The image in one of Pillow's modes ``L`` and ``RGB``; transparency is dropped."""
    if image.mode == mode:
        return image
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert(mode)  # the direct way warns
    if image.mode == "La":
        return image.convert("LA").convert(mode)  # there is no direct way
    return image.convert(mode)


def cause(error: Exception) -> str:
    """What a decoder said, as one line."""
    text = " ".join(str(error).split())
    return text if text and not isinstance(error, UnidentifiedImageError) else "its content is of no known kind"
