"""Single image files: same pixels as an image folder, orientation, scaling and invalid files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from support import load_image
from torch.nn.functional import interpolate

from budgetnet.common.errors import InputError, short_repr
from budgetnet.data.decoding import decode_images
from budgetnet.data.prediction_images import list_images, load_images

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


PHOTOS = ("a.png", "._a.png", ".hid/b.png", "inner/c.png", "inner/.hid/d.png", "inner/.e.png", "inner/deep/f.png")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["a.png"]),
        ("inner/../*.png", ["inner/../a.png"]),
        ("**/*.png", ["a.png", "inner/c.png", "inner/deep/f.png"]),
        # A folder that matches is listed as one that is given.
        ("*", ["a.png", "inner/c.png", "inner/deep/f.png"]),
        ("?*/?.png", ["inner/c.png"]),
        # What begins with a dot in the pattern is asked for.
        ("._*.png", ["._a.png"]),
        (".hid/*.png", [".hid/b.png"]),
        ("*/.hid/*.png", ["inner/.hid/d.png"]),
        (".[gh]*/*.png", [".hid/b.png"]),
        ("**/.e.*", ["inner/.e.png"]),
    ],
)
def test_patterns_match_hidden_files_only_where_they_name_them(folder: Path, pattern: str, names: list[str]) -> None:
    for name in PHOTOS:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        saved(Path(name), Image.fromarray(COLOUR))
    assert [image.name for image in list_images([Path(pattern)])] == names
    # As the shell lists them, which also expands a pattern.
    assert {image.name for image in list_images([folder / pattern])} == {f"{folder}/{name}" for name in names}


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("**.png", "is not a valid pattern: '\\*\\*' can only be an entire path component"),
        ("[.]*.png", "only hidden files match the pattern"),
        ("*.jpg", "no file matches the pattern"),
        (f"{'x' * 300}/*.png", "cannot be read: File name too long"),
    ],
)
def test_patterns_that_list_nothing_raise_one_line_errors(folder: Path, pattern: str, rule: str) -> None:
    saved(Path("._a.png"), Image.fromarray(COLOUR))
    with pytest.raises(InputError, match=rule) as caught:
        list_images([Path(pattern)])
    assert (caught.value.field, caught.value.value) == ("IMAGE", pattern)
    assert "\n" not in str(caught.value)


@contextmanager
def without_the_rights_of_root() -> Iterator[None]:
    """Make root someone else for a while, who may not read every file."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("this user may read every file")
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_cannot_be_opened_is_an_error_of_that_file_alone(folder: Path) -> None:
    folder.chmod(0o755)
    for name in ("open", "closed"):
        Path(name).mkdir()
        for number in range(2):
            saved(Path(name, f"{number}.png"), Image.fromarray(GREY))
    listed = list_images([Path("open"), Path("closed/0.png"), Path("closed/1.png"), Path("x" * 300), Path("none.png")])
    Path("open/0.png").chmod(0)
    Path("closed").chmod(0)
    # Relative to the current folder, as the ones above it may be closed to others.
    with without_the_rights_of_root():
        first, second, *others = load_images(listed, input_shape=(1, 6, 5))
    Path("closed").chmod(0o755)
    assert isinstance(second, np.ndarray)
    assert np.array_equal(second[0], GREY)
    reasons = ["Permission denied"] * 3 + ["File name too long"]
    for found, image, reason in zip([first, *others[:-1]], [listed[0], *listed[2:-1]], reasons, strict=True):
        assert isinstance(found, InputError)
        assert str(found) == f"IMAGE = {short_repr(image.name)}: cannot be read: {reason}"
    assert str(others[-1]) == "IMAGE = 'none.png': no such file"
