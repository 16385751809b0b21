"""Reader of single image files for prediction, of any size and common format."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from budgetnet.common.errors import InputError
from budgetnet.data.decoding import (
    FORMATS,
    Images,
    cause,
    converted,
    deep_mode,
    doubtful_sizes_refused,
    fitted,
    upright,
)


def load_image(path: Path, *, input_shape: tuple[int, int, int]) -> Images:
    """Read an image file as an input of a network.

    The image is read as those of a folder are: rotated by its EXIF orientation, its transparency dropped, of an
    animation only the first frame. It is scaled to cover the input size and centre-cropped; an image of the input size
    keeps its pixels.

    Args:
        path: path of the image file.
        input_shape: channels (1 or 3), height and width of the network's inputs.

    Returns:
        uint8 (channels, height, width).

    Raises:
        InputError: the file is not a valid image, has too many pixels or more than 8 bits a channel.
    """
    channels, height, width = input_shape
    try:
        if not path.is_file():  # opening a pipe would block
            raise InputError("IMAGE", str(path), "no such file" if not path.exists() else "must be a file")
        # Warnings are ignored, except those about image size, which are errors.
        with warnings.catch_warnings(action="ignore"), doubtful_sizes_refused():
            image = fitted(_in_mode(path, "L" if channels == 1 else "RGB"), (width, height))
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError("IMAGE", str(path), "has too many pixels to be decoded safely") from None
    except Exception as error:  # decoders raise many kinds of exceptions for damaged files
        raise InputError("IMAGE", str(path), f"is not a valid image: {cause(error)}") from None
    pixels = np.asarray(image)
    return pixels[np.newaxis] if channels == 1 else pixels.transpose(2, 0, 1)


def _in_mode(path: Path, mode: str) -> Image.Image:
    """Open an image, apply its orientation and convert it to Pillow's mode ``L`` or ``RGB``."""
    with Image.open(path, formats=FORMATS) as opened:
        if depth := deep_mode(opened):
            raise InputError("IMAGE", str(path), f"must have 8 bits a channel, not Pillow's mode {depth}")
        # Read before the file is closed; Pillow waits until the pixels are needed.
        opened.load()
        return converted(upright(opened), mode)
