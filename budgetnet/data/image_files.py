"""Image files to pixels, here or in a process of its own.

It imports nothing of budgetnet, so that a process that only decodes starts in a tenth of a second: see
``budgetnet.data.processes``, which runs this file as a program.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Images = npt.NDArray[np.uint8]

# Named, because Pillow otherwise goes by content, and would hand a disguised PostScript file to an interpreter.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")

_GREY_MODES = ("1", "L")
_DEEP_MODES = ("I", "F")  # and I;16 in its variants: more than 8 bits a channel, which Pillow would cut off

# What a process answers a list of files with, one line each; after the first come the pixels, after the last a reason.
PIXELS, NOT_GREY, UNREADABLE = b"pixels\n", b"not grey\n", b"unreadable\n"


class UnreadableError(Exception):
    """Images cannot be had; the message names the file and says what is wrong with it."""


class NotGrey(Exception):  # noqa: N818 - a turn in the reading, not an error
    """An image has colour where all before were grey."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads images of one size, and turns whatever goes wrong into an error that names the file."""

    root: str
    """The folder the files lie in."""

    first: str
    """The file that the others are measured by, as a path from the root on."""

    size: tuple[int, int]
    """Width and height that all images must have."""

    mode: str
    """Pillow's name for the pixels wanted: ``L`` for grey, ``RGB`` for colour."""

    def fill(self, files: Sequence[str], images: Images) -> None:
        """Decodes files into an array.

        Args:
            files: paths from the root on.
            images: where the pixels go, (number of files, channels, height, width).

        Raises:
            UnreadableError: a file is no sound image, or not one of this size and of 8 bits a channel.
            NotGrey: grey was wanted, and an image has colour.
        """
        for position, file in enumerate(files):
            images[position] = self._pixels(file)

    def _pixels(self, file: str) -> Images:
        with _opened(self.root, file) as image:
            if image.size != self.size:
                sizes = f"{image.width}x{image.height}, but {self.first} is {self.size[0]}x{self.size[1]}"
                raise UnreadableError(f"{file} is {sizes}; all images must have the same size")
            if image.mode.startswith(_DEEP_MODES):
                raise UnreadableError(f"{file} must have 8 bits a channel, not Pillow's mode {image.mode}")
            if self.mode == "L" and image.mode not in _GREY_MODES:
                raise NotGrey
            try:
                array = np.asarray(converted(image, self.mode))
            except Exception as error:  # decoders answer broken bytes with nearly any exception
                raise UnreadableError(f"{file} is not a sound image: {cause(error)}") from None
        return array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1)


def look_at(root: str, file: str) -> tuple[tuple[int, int], bool]:
    """Width and height of an image, and whether it is grey.

    Raises:
        UnreadableError: the file is no sound image.
    """
    with _opened(root, file) as image:
        return image.size, image.mode in _GREY_MODES


@contextmanager
def doubtful_sizes_refused() -> Iterator[None]:
    """Pillow warns of images it finds doubtfully large and refuses larger ones; in this block both are refused.

    Warning filters belong to the process, so this is set around threads, not in them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _opened(root: str, file: str) -> Image.Image:
    """The image with its header read."""
    try:
        # A path as text: with tens of thousands of small files, path objects are a tenth of the whole time.
        return Image.open(f"{root}/{file}", formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableError(f"{file} has too many pixels to be decoded safely") from None
    except Exception as error:  # as above
        raise UnreadableError(f"{file} is not a sound image: {cause(error)}") from None


def converted(image: Image.Image, mode: str) -> Image.Image:
    """The image in one of Pillow's modes ``L`` and ``RGB``; transparency is dropped."""
    if image.mode == mode:
        return image
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert(mode)  # the direct way warns
    return image.convert(mode)


def cause(error: Exception) -> str:
    """What a decoder said, as one line."""
    text = " ".join(str(error).split())
    return text if text and not isinstance(error, UnidentifiedImageError) else "its content is of no known kind"


def _serve() -> None:
    """Decodes what standard input asks for, until it ends, as it does when the process that asks is gone.

    The first line holds the reader and Pillow's limit of pixels, every further one a list of files, all in JSON.
    """
    settings = json.loads(sys.stdin.buffer.readline())
    Image.MAX_IMAGE_PIXELS = settings.pop("max_image_pixels")
    reader = Reader(**settings | {"size": tuple(settings["size"])})
    shape = (len(reader.mode), *reader.size[::-1])
    answers = sys.stdout.buffer
    with doubtful_sizes_refused():
        for line in sys.stdin.buffer:
            files = json.loads(line)
            images = np.empty((len(files), *shape), dtype=np.uint8)
            try:
                reader.fill(files, images)
            except NotGrey:
                answers.write(NOT_GREY)
            except UnreadableError as error:
                answers.write(UNREADABLE + json.dumps(str(error)).encode() + b"\n")
            else:
                answers.write(PIXELS)
                answers.write(images.data)
            answers.flush()


if __name__ == "__main__":
    try:
        _serve()
    except OSError:
        # Whoever asked is gone. At once, as an ordinary end would try to write once more, and complain.
        os._exit(1)
