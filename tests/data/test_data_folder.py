from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from budgetnet.common.errors import DataError
from budgetnet.data import DataSet, load_dataset
from budgetnet.data.folder import load_folder

CLASSES = ("cat", "dog")
SIZE = (5, 4)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BUDGETNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pixels(seed: int, *, mode: str = "RGB", size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images for training, alternating between the classes, and two for the test, one of each."""
    root = tmp_path / "images"
    for number in range(4):
        save(root / "train" / CLASSES[number % 2] / f"{number}.png", pixels(number))
    for number in range(2):
        save(root / "test" / CLASSES[number % 2] / f"{number}.png", pixels(10 + number))
    return root


def stored(dataset: DataSet) -> list[list[int]]:
    return [image.transpose(1, 2, 0).flatten().tolist() for image in dataset.train_images]


def expected(*seeds: int) -> list[list[int]]:
    return [pixels(seed).flatten().tolist() for seed in seeds]


def test_images_come_by_file_name_first_and_class_second(folder: Path) -> None:
    save(folder / "train" / "dog" / "0.png", pixels(20))
    dataset = load_folder(folder)
    assert stored(dataset) == expected(0, 20, 1, 2, 3)
    assert dataset.train_labels.tolist() == [0, 1, 1, 0, 1]
    assert dataset.class_names == CLASSES
    assert dataset.input_shape == (3, 4, 5)
    assert dataset.num_test == 2
    assert dataset.name == f"folder:{folder}"


def test_the_same_images_as_arrays_are_the_same_data_set(folder: Path, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "same.npz",
        train_images=np.stack([pixels(number) for number in range(4)]),
        train_labels=np.array([0, 1, 0, 1]),
        test_images=np.stack([pixels(10), pixels(11)]),
        test_labels=np.array([0, 1]),
    )
    from_arrays = load_dataset(f"arrays:{tmp_path / 'same.npz'}")
    for _ in range(2):  # decoded, then from the cache
        from_folder = load_dataset(f"folder:{folder}")
        np.testing.assert_array_equal(from_folder.train_images, from_arrays.train_images)
        np.testing.assert_array_equal(from_folder.train_labels, from_arrays.train_labels)
        opened = [
            data.test.open(reason="compare", by="test", log=tmp_path / "log") for data in (from_folder, from_arrays)
        ]
        np.testing.assert_array_equal(opened[0][0], opened[1][0])
        np.testing.assert_array_equal(opened[0][1], opened[1][1])
        assert from_folder.fingerprint == from_arrays.fingerprint
        assert from_folder.mean == from_arrays.mean


def test_what_is_left_out_is_named_and_endings_may_be_upper_case(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(folder / "train" / "cat" / "4.BMP", pixels(4))
    (folder / "train" / "cat" / ".5.png").write_bytes(b"hidden")
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    for number in range(4):
        save(folder / "train" / "cat" / "deeper.png" / f"{number}.png", pixels(number))
    (folder / "train" / ".hidden").mkdir()
    os.mkfifo(folder / "train" / "cat" / "pipe.png")
    (folder / "train" / "dog" / "5.png").symlink_to(folder / "train" / "cat" / "0.png")
    with caplog.at_level(logging.WARNING):
        assert stored(load_folder(folder)) == expected(0, 1, 2, 3, 4, 0)
    (line,) = caplog.messages
    assert line.startswith(f"data folder:{folder}: left out train/cat/")
    assert all(f"train/cat/{name}" in line for name in ("notes.txt", "deeper.png (4 images)", "pipe.png"))
    assert ".5.png" not in line


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp"])
def test_lossless_formats_give_back_their_pixels(folder: Path, suffix: str) -> None:
    path = folder / "train" / "cat" / f"4.{suffix}"
    Image.fromarray(pixels(4)).save(path, lossless=True)
    assert stored(load_folder(folder))[-1] == pixels(4).flatten().tolist()


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_jpeg_is_read(folder: Path, suffix: str) -> None:
    save(folder / "train" / "cat" / f"4.{suffix}", np.full((4, 5, 3), 100, np.uint8))
    assert max(abs(value - 100) for value in stored(load_folder(folder))[-1]) <= 2


def grey_folder(root: Path) -> Path:
    for part in ("train", "test"):
        for number, class_name in enumerate(CLASSES):
            save(root / part / class_name / f"{number}.png", pixels(number, mode="L"))
    return root


def test_grey_images_alone_have_one_channel(tmp_path: Path) -> None:
    dataset = load_folder(grey_folder(tmp_path / "grey"))
    assert dataset.input_shape == (1, 4, 5)
    np.testing.assert_array_equal(dataset.train_images[1, 0], pixels(1, mode="L"))


def test_one_image_in_colour_makes_all_have_three_channels(tmp_path: Path) -> None:
    root = grey_folder(tmp_path / "mixed")
    save(root / "test" / "dog" / "9.png", pixels(9))
    dataset = load_folder(root)
    assert dataset.input_shape == (3, 4, 5)
    for channel in range(3):
        np.testing.assert_array_equal(dataset.train_images[1, channel], pixels(1, mode="L"))


def test_palettes_and_transparency_become_plain_colour(folder: Path) -> None:
    palette = Image.fromarray(pixels(4)).quantize(8)
    palette.save(folder / "train" / "cat" / "4.png", transparency=bytes([0, 128, 255]))
    with_alpha = np.dstack([pixels(5), np.full((4, 5), 7, np.uint8)])
    save(folder / "train" / "cat" / "5.png", with_alpha)
    found = stored(load_folder(folder))
    assert found[4] == np.asarray(palette.convert("RGB")).flatten().tolist()
    assert found[5] == pixels(5).flatten().tolist()


def test_progress_is_told_from_the_calling_thread(folder: Path) -> None:
    told = []
    load_folder(folder, progress=lambda done, total: told.append((done, total, threading.current_thread())))
    assert told == [(6, 6, threading.main_thread())]


def test_many_larger_images_keep_their_order(tmp_path: Path) -> None:
    root = tmp_path / "larger"
    for part, count in (("train", 600), ("test", 2)):
        for number in range(count):
            path = root / part / CLASSES[number % 2] / f"{number:03d}.bmp"
            save(path, np.full((64, 64), number % 251, np.uint8))
    told: list[int] = []
    dataset = load_folder(root, progress=lambda done, _: told.append(done))
    assert dataset.train_images[:, 0, 5, 7].tolist() == [number % 251 for number in range(600)]
    assert told == [256, 512, 602]


def unchanged(path: Path, content: bytes) -> None:
    """Other content of the same length, with the time of the old."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_second_load_does_not_decode(folder: Path, cache: Path) -> None:
    first = load_folder(folder)
    image = folder / "train" / "cat" / "0.png"
    unchanged(image, bytes(image.stat().st_size))
    second = load_folder(folder)
    assert stored(second) == stored(first)
    assert second.fingerprint == first.fingerprint
    assert len(list(cache.rglob("*.npz"))) == 1
    assert not list(cache.rglob("*.part"))


def test_a_changed_folder_is_decoded_anew_into_the_same_file(folder: Path, cache: Path) -> None:
    load_folder(folder)
    save(folder / "train" / "cat" / "0.png", pixels(30))
    os.utime(folder / "train" / "cat" / "0.png", ns=(1, 1))
    assert stored(load_folder(folder)) == expected(30, 1, 2, 3)
    (folder / "train" / "cat" / "2.png").rename(folder / "train" / "dog" / "2.png")
    assert load_folder(folder).train_labels.tolist() == [0, 1, 1, 1]
    (folder / "train" / "dog" / "3.png").unlink()
    assert stored(load_folder(folder)) == expected(30, 1, 2)
    assert len(list(cache.rglob("*.npz"))) == 1


def test_two_folders_have_two_caches_and_one_folder_by_two_paths_has_one(
    folder: Path, tmp_path: Path, cache: Path
) -> None:
    load_folder(folder)
    load_folder(folder / ".." / "images")
    assert len(list(cache.rglob("*.npz"))) == 1
    load_folder(grey_folder(tmp_path / "grey"))
    assert len(list(cache.rglob("*.npz"))) == 2


def damaged(content: bytes) -> Iterator[bytes]:
    yield b""
    yield b"no archive"
    yield content[: len(content) // 2]
    for position in range(0, len(content), 97):
        yield content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :]


@pytest.mark.filterwarnings("ignore::UserWarning")  # numpy and zipfile may remark on what is broken
def test_a_damaged_cache_is_made_anew(folder: Path, cache: Path) -> None:
    wanted = load_folder(folder)
    (file,) = cache.rglob("*.npz")
    sound = file.read_bytes()
    for content in damaged(sound):
        file.write_bytes(content)
        assert load_folder(folder).fingerprint == wanted.fingerprint
    load_folder(folder)
    assert len(file.read_bytes()) == len(sound)


def test_a_cache_of_other_pixels_is_found_out_by_its_fingerprint(folder: Path, cache: Path) -> None:
    wanted = stored(load_folder(folder))
    (file,) = cache.rglob("*.npz")
    with np.load(file) as archive:
        content = dict(archive)
    content["train_images"] = content["train_images"] ^ 1
    np.savez(file, **content)
    assert stored(load_folder(folder)) == wanted
    content["train_images"] = content["train_images"][:2]
    np.savez(file, **content)
    assert stored(load_folder(folder)) == wanted


def test_a_cache_that_cannot_be_written_is_done_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BUDGETNET_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, logger="budgetnet.data.cache"):
        assert stored(load_folder(folder)) == expected(0, 1, 2, 3)
    assert "cannot be written" in caplog.text


def test_without_a_home_there_is_no_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("BUDGETNET_CACHE")
    monkeypatch.setattr(Path, "home", no_home)
    assert stored(load_folder(folder)) == expected(0, 1, 2, 3)


def test_a_missing_folder_or_part_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold train/<class>/ .*train is missing"):
        load_folder(tmp_path / "nowhere")
    (folder / "test").rename(folder / "tests")
    with pytest.raises(DataError, match="test is missing"):
        load_folder(folder)
    (folder / "test").write_text("a file")
    with pytest.raises(DataError, match="test cannot be read"):
        load_folder(folder)


@pytest.mark.parametrize(("part", "other"), [("train", "test"), ("test", "train")])
def test_train_and_test_must_have_the_same_classes(folder: Path, part: str, other: str) -> None:
    (folder / part / "bird").mkdir()
    with pytest.raises(DataError, match=f"the same classes, 'bird' is only in {part}"):
        load_folder(folder)


def test_parts_and_classes_without_images_are_told(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "bird").mkdir()
    with pytest.raises(DataError, match="every class needs a training image, class 'bird' has none"):
        load_folder(folder)
    for image in (folder / "test").rglob("*.png"):
        image.unlink()
    with pytest.raises(DataError, match="test must hold at least one image"):
        load_folder(folder)


def test_an_image_of_another_size_is_named_with_both_sizes(folder: Path) -> None:
    save(folder / "test" / "dog" / "9.png", pixels(0, size=(7, 6)))
    with pytest.raises(DataError, match=r"test/dog/9.png is 7x6, but train/cat/0.png is 5x4"):
        load_folder(folder)


@pytest.mark.parametrize("victim", ["train/cat/0.png", "test/dog/1.png"])
def test_a_corrupt_image_is_named(folder: Path, cache: Path, victim: str) -> None:
    sound = (folder / victim).read_bytes()
    for content in (b"", b"no image", sound[:-40], sound[:30], sound[:50] + bytes(20) + sound[70:]):
        (folder / victim).write_bytes(content)
        with pytest.raises(DataError, match=f"{victim} is not a sound image") as caught:
            load_folder(folder)
        assert "\n" not in str(caught.value)
    assert not list(cache.rglob("*.npz"))


def test_only_image_formats_are_opened_whatever_the_ending_says(folder: Path) -> None:
    (folder / "train" / "cat" / "0.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n%%EndComments\n"  # Pillow would hand it to an interpreter
    )
    with pytest.raises(DataError, match=r"0.png is not a sound image"):
        load_folder(folder)


def test_more_than_eight_bits_a_channel_are_refused(folder: Path) -> None:
    Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(folder / "train" / "cat" / "0.png")
    with pytest.raises(DataError, match=r"0.png must have 8 bits a channel"):
        load_folder(folder)


@pytest.mark.parametrize("limit", [19, 9])  # 20 pixels: more than the limit is doubtful, more than twice is refused
@pytest.mark.parametrize("victim", ["train/cat/0.png", "train/dog/1.png"])
def test_a_decompression_bomb_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int, victim: str
) -> None:
    for image in folder.rglob("*.png"):
        save(image, pixels(0, size=(2, 2)))
    save(folder / victim, pixels(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=f"{victim} has too many pixels"):
        load_folder(folder)


def test_a_broken_link_is_told(folder: Path) -> None:
    (folder / "train" / "cat" / "9.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match=r"9.png cannot be read"):
        load_folder(folder)


def test_images_that_do_not_fit_into_memory_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(DataError, match="6 images of 5x4 do not fit into memory"):
        load_folder(folder)


@pytest.mark.parametrize("step", ["exif_transpose", "fit"])
def test_a_lack_of_memory_while_decoding_is_no_fault_of_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(0)).save(folder / "train" / "cat" / "0.png", exif=exif)
    monkeypatch.setattr(ImageOps, step, full)
    with pytest.raises(MemoryError):
        load_dataset(f"folder:{folder},size=4")


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_the_test_set_has_one_of_four_names(folder: Path, name: str) -> None:
    (folder / "test").rename(folder / name)
    assert stored(load_folder(folder)) == expected(0, 1, 2, 3)


def test_a_folder_of_validation_images_is_left_out_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "val").mkdir()
    assert stored(load_folder(folder)) == expected(0, 1, 2, 3)
    assert "left out the folder val: not read, as every recipe holds out training images" in caplog.text
