"""Any picture becomes what an image folder would have made of it, and what it was where it is of another size."""

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
from torch.nn.functional import interpolate

from budgetnet.common.errors import InputError
from budgetnet.data.decoding import decode_images
from budgetnet.data.single_image import read_picture

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
"""A picture of 6 rows and 5 columns."""
GREY = COLOUR[:, :, 0]


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def read(path: Path, *, channels: int = 3, height: int = 6, width: int = 5) -> npt.NDArray[np.uint8]:
    pixels = read_picture(path, input_shape=(channels, height, width))
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
def test_a_picture_of_the_right_size_has_the_pixels_that_a_folder_gives(tmp_path: Path, suffix: str, mode: str) -> None:
    path = saved(tmp_path / f"picture.{suffix}", Image.fromarray(COLOUR).convert(mode))
    expected = decode_images([path.name], root=tmp_path, name="test")[0]
    assert np.array_equal(read(path, channels=len(expected)), expected)


def test_pixels_come_channel_by_channel(tmp_path: Path) -> None:
    assert np.array_equal(read(saved(tmp_path / "c.png", Image.fromarray(COLOUR))), COLOUR.transpose(2, 0, 1))
    assert np.array_equal(read(saved(tmp_path / "g.png", Image.fromarray(GREY)), channels=1), GREY[np.newaxis])
    # Grey for a network that sees colours, and the other way round by the weights of ITU-R 601.
    assert np.array_equal(read(tmp_path / "g.png"), np.stack([GREY] * 3))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read(tmp_path / "c.png", channels=1)[0] - luma).max() <= 1


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 127, 128, 129, 257], [300, 32768, 65534, 65407, 65535]], dtype=np.uint16)
    for suffix in ("png", "tif"):
        path = saved(tmp_path / f"deep.{suffix}", Image.fromarray(deep))
        expected = np.floor(deep / 257 + 0.5)
        assert np.array_equal(read(path, channels=1, height=2)[0], expected)
        assert np.array_equal(read(path, height=2)[2], expected)


def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 5), value, dtype=np.uint8)) for value in (40, 200)]
    path = saved(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    assert np.unique(read(path)).tolist() == [40]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path, orientation: int) -> None:
    # What the camera saw, and how it lies in the file by the standard's table of orientations.
    lying = {
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
    path = saved(tmp_path / "turned.png", Image.fromarray(np.ascontiguousarray(lying)), exif=exif)
    assert np.array_equal(read(path, channels=1)[0], GREY)


def test_another_size_is_scaled_until_it_covers_and_cropped_around_the_centre(tmp_path: Path) -> None:
    wide = np.random.default_rng(3).integers(0, 256, (20, 40), dtype=np.uint8)
    pixels = read(saved(tmp_path / "wide.png", Image.fromarray(wide)), channels=1, height=10, width=10)[0]
    # Twice as wide as high: of 20 columns the middle ten are seen. Scaled by torch.
    scaled = interpolate(torch.from_numpy(wide)[None, None].double(), size=(10, 20), mode="bilinear", antialias=True)
    assert np.abs(pixels - scaled[0, 0, :, 5:15].numpy()).max() <= 1
    tall = read(saved(tmp_path / "tall.png", Image.fromarray(wide.T)), channels=1, height=10, width=10)[0]
    assert np.abs(tall.astype(int) - pixels.T).max() <= 1
    flat = np.full((3, 200), 77, dtype=np.uint8)
    assert np.unique(read(saved(tmp_path / "flat.png", Image.fromarray(flat)), height=9, width=4)).tolist() == [77]


def png(width: int, height: int) -> bytes:
    """A PNG of that size, by its header; there are no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def cut_short() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()[:500]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a sound image: its content is of no known kind"),
        (b"no picture", "is not a sound image: its content is of no known kind"),
        (cut_short(), "is not a sound image"),
        (png(10_000, 10_000), "has too many pixels to be decoded safely"),
        (png(60_000, 60_000), "has too many pixels to be decoded safely"),
        # Would be handed to an interpreter.
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n", "is not a sound image: its content is of no known kind"),
    ],
    ids=["empty", "text", "cut", "doubtful", "bomb", "postscript"],
)
def test_what_is_no_sound_picture_is_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert (caught.value.field, caught.value.value) == ("IMAGE", str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "must be a file"), ("", "must be a file"), ("none.png", "no such file")):
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_floating_point_values_have_no_known_range(tmp_path: Path) -> None:
    path = saved(tmp_path / "float.tif", Image.fromarray(np.ones((6, 5), dtype=np.float32)))
    with pytest.raises(InputError, match="has floating-point values, whose range nobody knows"):
        read(path)
