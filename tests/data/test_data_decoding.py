"""Decoding some thousand image files: their order, broken files, and nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from budgetnet.common.errors import DataError
from budgetnet.data import decoding
from budgetnet.data.decoding import decode_images

COUNT = 600
VALUES = [number % 251 for number in range(COUNT)]


@pytest.fixture(autouse=True, params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images as small as these are decoded in one thread, larger ones in one a core."""
    monkeypatch.setattr(decoding, "available_cores", lambda: 2)
    monkeypatch.setattr(decoding, "_SMALL", 10**9 if request.param == 1 else 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Grey images 5x4, each of one value that tells its number."""
    for number in range(COUNT):
        Image.fromarray(np.full((4, 5), number % 251, np.uint8)).save(tmp_path / f"{number:03d}.bmp")
    return tmp_path


def files(root: Path) -> list[str]:
    return sorted(file.name for file in root.iterdir())


def none_runs() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_all_images_are_decoded_in_their_order(root: Path) -> None:
    reported: list[tuple[int, int]] = []
    images = decode_images(files(root), root=root, name="x", progress=lambda *at: reported.append(at))
    assert images.shape == (COUNT, 1, 4, 5)
    assert images[:, 0, 3, 4].tolist() == images[:, 0, 0, 0].tolist() == VALUES
    assert reported == [(256, COUNT), (512, COUNT), (COUNT, COUNT)]
    assert none_runs()


def test_colour_found_late_makes_all_images_colour(root: Path) -> None:
    Image.fromarray(np.full((4, 5, 3), (1, 2, 3), np.uint8)).save(root / "599.bmp")
    images = decode_images(files(root), root=root, name="x")
    assert images.shape == (COUNT, 3, 4, 5)
    assert images[:599, 2, 0, 0].tolist() == VALUES[:599]
    assert images[599, :, 2, 2].tolist() == [1, 2, 3]


@pytest.mark.parametrize("broken", [(300,), (0, 300), (0, 1, 2, 300, 599), range(COUNT)])
def test_broken_files_are_counted_and_the_first_named_in_one_line(root: Path, broken: Sequence[int]) -> None:
    for number in broken:
        (root / f"{number:03d}.bmp").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        decode_images(files(root), root=root, name="x")
    kind = "is not a sound image: its content is of no known kind"
    named = ", ".join(f"{number:03d}.bmp {kind}" for number in broken[:3])
    counted = f"{len(broken)} files cannot be read: " if len(broken) > 1 else ""
    assert caught.value.rule == counted + named + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
    assert none_runs()


def test_the_limit_of_pixels_holds_in_every_thread(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(root / "400.bmp")
    with pytest.raises(DataError, match=r"400.bmp is 6x4, but 000.bmp is 5x4"):
        decode_images(files(root), root=root, name="x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"400.bmp has too many pixels"):
        decode_images(files(root), root=root, name="x")


def test_an_interruption_ends_decoding_soon(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    opened = decoding._opened

    def recorded(folder: str, file: str) -> Image.Image:
        read.append(file)
        return opened(folder, file)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding, "_opened", recorded)
    many = files(root) * 20
    with pytest.raises(KeyboardInterrupt):
        decode_images(many, root=root, name="x", progress=interrupt)
    assert none_runs()
    assert len(read) < len(many) / 2, "what had not been begun is left"
