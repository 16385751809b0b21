"""Folders of pictures as they come: of many sizes, without a split, with broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import load_image, prepare, tiny_recipe

from budgetnet.common.errors import DataError
from budgetnet.data import DataSet, load_dataset
from budgetnet.data.dataset import make_dataset


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDGETNET_CACHE", str(tmp_path / "cache"))


def flat(root: Path, *, count: int = 20) -> Path:
    """Write pictures of many sizes into the folders of two classes, without a split."""
    random = np.random.default_rng(0)
    for number in range(count):
        side = tuple(int(each) for each in random.integers(5, 40, 2))
        colours = random.integers(0, 256, (*side, 3), dtype=np.uint8)
        path = root / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save(path)
    return root


def test_a_folder_without_a_split_is_split_by_class(tmp_path: Path) -> None:
    root = flat(tmp_path / "photos")
    dataset = load_dataset(f"folder:{root},size=8,test=0.25")
    assert (dataset.num_train, dataset.num_test, dataset.input_shape) == (15, 5, (3, 8, 8))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.provenance.endswith("; 25% of them at random are the test set")
    _, labels = dataset.test.open(reason="a test", by="a test", log=tmp_path / "log")
    assert sorted(np.bincount(labels).tolist()) == [2, 3]
    again = load_dataset(f"folder:{root},test=0.25,size=8")
    assert again.fingerprint == dataset.fingerprint, "from the cache, and the order of options does not matter"
    assert load_dataset(f"folder:{root},size=8").num_test == 4, "a fifth by default"
    eighth = load_dataset(f"folder:{root},size=8,test=0.125")
    assert eighth.provenance.endswith("; 12.5% of them at random are the test set")


def test_a_folder_must_be_named_before_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(flat(tmp_path / "photos"))
    with pytest.raises(DataError, match=r"^data = 'folder:,size=8': must name a folder before its options$"):
        load_dataset("folder:,size=8")


def test_scaled_images_are_those_of_a_prediction(tmp_path: Path) -> None:
    root = flat(tmp_path / "photos")
    dataset = load_dataset(f"folder:{root},size=8,test=0.2")
    test, _ = dataset.test.open(reason="a test", by="a test", log=tmp_path / "log")
    found = {image.tobytes() for image in (*dataset.train_images, *test)}
    expected = {load_image(path, input_shape=(3, 8, 8)).tobytes() for path in root.rglob("*.png")}
    assert found == expected


def test_copies_in_a_folder_without_a_split_are_on_one_side(tmp_path: Path) -> None:
    root = flat(tmp_path / "photos")
    for path in list(root.rglob("*.png")):
        (path.parent / f"copy of {path.name}").write_bytes(path.read_bytes())
    dataset = load_dataset(f"folder:{root},size=8")
    test, _ = dataset.test.open(reason="a test", by="a test", log=tmp_path / "log")
    assert (dataset.num_train, dataset.num_test) == (32, 8)
    assert not {image.tobytes() for image in test} & {image.tobytes() for image in dataset.train_images}


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (",size=0", "size must be a whole number of pixels from 1 to 1024"),
        (",size=x", "size must be a whole number"),
        (",size=99999999999999999999", "size must be a whole number"),
        (",size=8,size=9", "gives size twice"),
        (",size=0000010245", "size must be a whole number"),
        (",test=1.5", "test must be a share between 0 and 1"),
        (",test=0.0", "test must be a share between 0 and 1"),
        ("", r": dog/01.png is .*, but cat/00.png is .*; .* to scale and crop them: folder:PATH,size=32"),
    ],
)
def test_wrong_options_of_a_folder_are_one_line(tmp_path: Path, options: str, rule: str) -> None:
    with pytest.raises(DataError, match=rule) as caught:
        load_dataset(f"folder:{flat(tmp_path / 'photos')}{options}")
    assert "\n" not in str(caught.value)


def test_a_comma_may_be_part_of_a_path(tmp_path: Path) -> None:
    root = flat(tmp_path / "cats, dogs,size=big")
    with pytest.raises(DataError, match="size must be a whole number"):
        load_dataset(f"folder:{root}")
    assert load_dataset(f"folder:{flat(tmp_path / 'cats, dogs')},size=8").num_train == 16


def test_a_class_with_one_picture_is_named(tmp_path: Path, digits: DataSet) -> None:
    root = flat(tmp_path / "photos")
    (root / "heron").mkdir()
    (root / "cat" / "00.png").rename(root / "heron" / "00.png")
    with pytest.raises(DataError, match=r"class = 'heron': each class needs at least 2 images, .* this class has 1"):
        load_dataset(f"folder:{root},size=8")
    training = make_dataset(
        name="birds",
        train_images=digits.train_images[:5, 0],
        train_labels=np.array([0, 0, 0, 0, 1]),
        test_images=digits.train_images[:2, 0],
        test_labels=np.array([0, 1]),
        class_names=["cat", "heron"],
        provenance="made for this test",
    )
    with pytest.raises(DataError, match="class = 'heron': each class needs at least 2 images"):
        prepare(training, tiny_recipe())


def test_a_broken_picture_with_an_orientation_is_named(tmp_path: Path) -> None:
    root = flat(tmp_path / "photos")
    exif = Image.Exif()
    exif[0x0112] = 6
    first = root / "cat" / "00.jpg"
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(first, exif=exif)
    first.write_bytes(first.read_bytes()[:-200])
    (root / "cat" / "00.png").unlink()
    with pytest.raises(DataError, match=r"cat/00.jpg is not a sound image"):
        load_dataset(f"folder:{root},size=8")


def test_a_name_that_no_file_can_have_is_one_line() -> None:
    with pytest.raises(DataError, match="must be digits, cifar10"):
        load_dataset("a" * 300)
