"""Reader of single image files for prediction, of any size and common format."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from budgetnet.common.errors import InputError
from budgetnet.data.decoding import Images, cause, converted, doubtful_sizes_refused

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""Supported formats, recognised by content. Restricted because Pillow passes PostScript files to an interpreter."""

# Unlike bicubic interpolation, bilinear does not overshoot.
_METHOD = Image.Resampling.BILINEAR


def load_image(path: Path, *, input_shape: tuple[int, int, int]) -> Images:
    """Read an image file as an input of a network.

    The image is rotated by its EXIF orientation, scaled to cover the input size and centre-cropped; an image of the
    input size keeps its pixels. Only the first frame of an animation is read; transparency is dropped; 16 bits per
    channel are reduced to 8.

    Args:
        path: path of the image file.
        input_shape: channels (1 or 3), height and width of the network's inputs.

    Returns:
        uint8 (channels, height, width).

    Raises:
        InputError: the file is not a valid image, has too many pixels or has floating-point values.
    """
    channels, height, width = input_shape
    try:
        if not path.is_file():  # opening a pipe would block
            raise InputError("IMAGE", str(path), "no such file" if not path.exists() else "must be a file")
        # Warnings are ignored, except those about image size, which are errors.
        with warnings.catch_warnings(action="ignore"), doubtful_sizes_refused():
            image = ImageOps.fit(_in_mode(path, "L" if channels == 1 else "RGB"), (width, height), _METHOD)
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
        image = ImageOps.exif_transpose(opened)
        if image.mode == "F":
            raise InputError("IMAGE", str(path), "has floating-point values, whose range is unknown")
        if image.mode.startswith("I"):
            # 16-bit values are 257 times 8-bit values, rounded.
            image = image.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
        return converted(image, mode)
