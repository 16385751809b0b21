"""Odd image files: a folder and a prediction read each of them in the same way, or both refuse it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import load_image

from budgetnet.common.errors import DataError, InputError
from budgetnet.data.decoding import decode_images

HEIGHT, WIDTH = 4, 6
COLOUR = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def deep_png(path: Path, *, colour_type: int, channels: int) -> None:
    """Write a PNG of 16 bits a channel with the values of a 10-bit camera, 0 to 1,023."""
    values = np.random.default_rng(1).integers(0, 1024, (HEIGHT, WIDTH * channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).resize((WIDTH, HEIGHT)).save(path, exif=exif, quality=95)


def write(kind: str, path: Path) -> None:
    image = Image.fromarray(COLOUR)
    if kind.startswith("orientation"):
        turned(path, int(kind[-1]))
    elif kind == "animation":
        others = [Image.fromarray(GREY)]
        image.save(path, save_all=True, append_images=others)
    elif kind in ("RGBA", "LA", "CMYK", "1", "P"):
        image.convert(kind).save(path)
    elif kind == "transparent palette":
        image.convert("P").save(path, transparency=0)
    else:
        image.save(path)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *((f"orientation {number}", "jpg") for number in range(1, 9)),
        *((f"orientation {number}", "png") for number in (3, 6)),
        ("animation", "gif"),
        *((mode, "png") for mode in ("RGBA", "LA", "1", "P", "transparent palette")),
        ("CMYK", "jpg"),
        *(("plain", suffix) for suffix in ("tif", "ppm", "bmp", "webp", "gif", "jpeg")),
    ],
)
def test_a_folder_and_a_prediction_read_the_same_pixels(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"odd.{suffix}"
    write(kind, path)
    (from_folder,) = decode_images([path.name], root=tmp_path, name="folder")
    channels, height, width = from_folder.shape
    assert (height, width) == ((WIDTH, HEIGHT) if kind[-1] in "5678" and "orientation" in kind else (HEIGHT, WIDTH))
    single = load_image(path, input_shape=(channels, height, width))
    np.testing.assert_array_equal(single, from_folder)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_more_than_eight_bits_a_channel_are_refused_by_both(tmp_path: Path, colour_type: int, channels: int) -> None:
    path = tmp_path / "deep.png"
    deep_png(path, colour_type=colour_type, channels=channels)
    with pytest.raises(DataError, match=r"deep.png must have 8 bits a channel"):
        decode_images([path.name], root=tmp_path, name="folder")
    with pytest.raises(InputError, match=r"must have 8 bits a channel"):
        load_image(path, input_shape=(3, HEIGHT, WIDTH))


@pytest.mark.parametrize(("mode", "suffix"), [("LA", "png"), ("LA", "tif"), ("La", "tif")])
def test_grey_images_with_transparency_are_grey_for_both(tmp_path: Path, mode: str, suffix: str) -> None:
    # Multiplied by their transparency, only those of opaque images are the values that are seen.
    transparency = np.full((HEIGHT, WIDTH), 255 if mode == "La" else 100, np.uint8)
    path = tmp_path / f"odd.{suffix}"
    Image.merge("LA", [Image.fromarray(each) for each in (GREY, transparency)]).save(path)
    if mode == "La":
        # Pillow writes no such file; 1 in place of 2 in the tag 338 makes one of what it writes.
        path.write_bytes(path.read_bytes().replace(b"\x52\x01\3\0\1\0\0\0\2", b"\x52\x01\3\0\1\0\0\0\1"))
    with Image.open(path) as written:
        assert written.mode == mode
    Image.fromarray(GREY).save(tmp_path / "plain.png")
    images = decode_images([path.name, "plain.png", path.name], root=tmp_path, name="folder")
    assert images.shape == (3, 1, HEIGHT, WIDTH)
    for image in (*images, load_image(path, input_shape=(1, HEIGHT, WIDTH))):
        np.testing.assert_array_equal(image[0], GREY)
