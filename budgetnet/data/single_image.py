"""Any picture that a person has, as a network takes it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from budgetnet.common.errors import InputError
from budgetnet.data.decoding import Images, cause, converted, doubtful_sizes_refused

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""What is read, by content. Named, because Pillow would hand a disguised PostScript file to an interpreter."""

# Unlike a bicubic filter, it makes nothing brighter or darker than what was there.
_METHOD = Image.Resampling.BILINEAR


def read_picture(path: Path, *, input_shape: tuple[int, int, int]) -> Images:
    """Reads a picture of any size and makes it an image as those of a data set.

    A picture of the network's own size keeps its pixels, exactly as an image folder's do. Another one is turned as its
    camera says, scaled until it covers the network's image, and cropped to it around its centre. Of an animation the
    first picture is taken; transparency is dropped; 16 bits a channel become 8.

    Args:
        path: the file.
        input_shape: channels, 1 or 3, height and width of the network's images.

    Returns:
        uint8 (channels, height, width).

    Raises:
        InputError: it is no sound picture, has too many pixels to be decoded safely, or values of no known range.
    """
    channels, height, width = input_shape
    try:
        if not path.is_file():  # A pipe would be waited for.
            raise InputError("IMAGE", str(path), "no such file" if not path.exists() else "must be a file")
        # Remarks on odd files go nowhere; those on sizes are errors.
        with warnings.catch_warnings(action="ignore"), doubtful_sizes_refused():
            picture = ImageOps.fit(_in_mode(path, "L" if channels == 1 else "RGB"), (width, height), _METHOD)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError("IMAGE", str(path), "has too many pixels to be decoded safely") from None
    except Exception as error:  # decoders answer broken bytes with nearly any exception
        raise InputError("IMAGE", str(path), f"is not a sound image: {cause(error)}") from None
    pixels = np.asarray(picture)
    return pixels[np.newaxis] if channels == 1 else pixels.transpose(2, 0, 1)


def _in_mode(path: Path, mode: str) -> Image.Image:
    """The whole picture, upright, in one of Pillow's modes ``L`` and ``RGB``."""
    with Image.open(path, formats=FORMATS) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode == "F":
            raise InputError("IMAGE", str(path), "has floating-point values, whose range nobody knows")
        if picture.mode.startswith("I"):
            # 16 bits: 257 times what 8 bits would be, rounded.
            picture = picture.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
        return converted(picture, mode)
