"""Single image files: same pixels as an image folder, orientation, scaling and invalid files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from support import load_image
from torch.nn.functional import interpolate

from budgetnet.common.errors import InputError
from budgetnet.data.decoding import decode_images

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
"""Image of 6 rows and 5 columns."""
GREY = COLOUR[:, :, 0]


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def read(path: Path, *, channels: int = 3, height: int = 6, width: int = 5) -> npt.NDArray[np.uint8]:
    pixels = load_image(path, input_shape=(channels, height, width))
    assert pixels.shape == (channels, height, width)
    assert pixels.dtype == np.uint8
    return pixels


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("png", mode) for mode in ("L", "RGB", "RGBA", "LA", "P", "1")),
        *(("jpg", mode) for mode in ("L", "RGB", "CMYK")),
        *(("webp", mode) for mode in ("RGB", "RGBA")),
        *(("bmp", mode) for mode in ("L", "RGB", "P", "1")),
    ],
)
def test_an_image_of_the_input_size_equals_that_of_a_folder(tmp_path: Path, suffix: str, mode: str) -> None:
    path = saved(tmp_path / f"image.{suffix}", Image.fromarray(COLOUR).convert(mode))
    expected = decode_images([path.name], root=tmp_path, name="test")[0]
    assert np.array_equal(read(path, channels=len(expected)), expected)


def test_channels_come_first_and_are_converted(tmp_path: Path) -> None:
    assert np.array_equal(read(saved(tmp_path / "c.png", Image.fromarray(COLOUR))), COLOUR.transpose(2, 0, 1))
    assert np.array_equal(read(saved(tmp_path / "g.png", Image.fromarray(GREY)), channels=1), GREY[np.newaxis])
    # Grey is repeated for three channels; colour is converted to grey by ITU-R 601.
    assert np.array_equal(read(tmp_path / "g.png"), np.stack([GREY] * 3))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read(tmp_path / "c.png", channels=1)[0] - luma).max() <= 1


def test_only_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 5), value, dtype=np.uint8)) for value in (40, 200)]
    path = saved(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    assert np.unique(read(path)).tolist() == [40]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    # How the file stores the upright image for each orientation of the EXIF standard.
    stored = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY, 1),
        7: np.rot90(GREY, 2).T,
        8: np.rot90(GREY, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "rotated.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(read(path, channels=1)[0], GREY)


def test_images_of_other_sizes_are_scaled_and_centre_cropped(tmp_path: Path) -> None:
    wide = np.random.default_rng(3).integers(0, 256, (20, 40), dtype=np.uint8)
    pixels = read(saved(tmp_path / "wide.png", Image.fromarray(wide)), channels=1, height=10, width=10)[0]
    # Scaled to 10x20 by torch, of which the middle ten columns remain.
    scaled = interpolate(torch.from_numpy(wide)[None, None].double(), size=(10, 20), mode="bilinear", antialias=True)
    assert np.abs(pixels - scaled[0, 0, :, 5:15].numpy()).max() <= 1
    tall = read(saved(tmp_path / "tall.png", Image.fromarray(wide.T)), channels=1, height=10, width=10)[0]
    assert np.abs(tall.astype(int) - pixels.T).max() <= 1
    flat = np.full((3, 200), 77, dtype=np.uint8)
    assert np.unique(read(saved(tmp_path / "flat.png", Image.fromarray(flat)), height=9, width=4)).tolist() == [77]


def png(width: int, height: int) -> bytes:
    """Return a PNG whose header has this size, without pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def truncated_png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()[:500]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a valid image: its content is of no known kind"),
        (b"no image", "is not a valid image: its content is of no known kind"),
        (truncated_png(), "is not a valid image"),
        (png(10_000, 10_000), "has too many pixels to be decoded safely"),
        (png(60_000, 60_000), "has too many pixels to be decoded safely"),
        # Pillow would pass it to an interpreter.
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n", "is not a valid image: its content is of no known kind"),
    ],
    ids=["empty", "text", "cut", "doubtful", "bomb", "postscript"],
)
def test_invalid_images_raise_one_line_errors(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert (caught.value.field, caught.value.value) == ("IMAGE", str(path))
    assert "\n" not in str(caught.value)


def test_pipes_and_missing_files_are_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "must be a file"), ("", "must be a file"), ("none.png", "no such file")):
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_floating_point_images_are_rejected(tmp_path: Path) -> None:
    path = saved(tmp_path / "float.tif", Image.fromarray(np.ones((6, 5), dtype=np.float32)))
    with pytest.raises(InputError, match="must have 8 bits a channel, not Pillow"):
        read(path)
