"""Data sets from files of arrays."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Trap

from budgetnet.common.errors import DataError
from budgetnet.data import load_dataset


def arrays(**changes: Any) -> dict[str, Any]:
    return {
        "train_images": np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3),
        "train_labels": np.array([0, 1, 0, 1], dtype=np.uint8),
        "test_images": np.zeros((2, 2, 3), np.uint8),
        "test_labels": np.array([1, 0]),
        **changes,
    }


def test_arrays_keep_the_name_given_by_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", **arrays(class_names=np.array(["no", "yes"])))
    monkeypatch.setenv("HOME", str(tmp_path))
    dataset = load_dataset("arrays:~/x.npz")
    assert dataset.name == "arrays:~/x.npz"
    assert dataset.class_names == ("no", "yes")
    np.testing.assert_array_equal(dataset.train_images[:, 0], arrays()["train_images"])
    monkeypatch.chdir(tmp_path)
    assert load_dataset("arrays:./x.npz").name == "arrays:./x.npz"


def test_validation_images_of_a_file_are_added_to_the_training_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = arrays(val_images=np.full((2, 2, 3), 9, np.uint8), val_labels=np.array([[1], [0]], dtype=np.uint8))
    np.savez(tmp_path / "x.npz", **given)
    dataset = load_dataset(f"arrays:{tmp_path / 'x.npz'}")
    assert dataset.train_labels.tolist() == [0, 1, 0, 1, 1, 0]
    np.testing.assert_array_equal(dataset.train_images[:4, 0], given["train_images"])
    np.testing.assert_array_equal(dataset.train_images[4:, 0], given["val_images"])
    assert dataset.num_test == 2
    assert "the 2 images of val_images are added to the training images" in dataset.provenance
    assert "val_images" in caplog.text


@pytest.mark.parametrize(("train", "val"), [("uint64", "int64"), ("int8", "uint64"), ("uint8", "int16")])
def test_labels_of_any_whole_numbers_are_joined(tmp_path: Path, train: str, val: str) -> None:
    changes = {"train_labels": np.array([0, 1, 0, 1], train), "val_labels": np.array([1, 0], val)}
    np.savez(tmp_path / "x.npz", **arrays(val_images=np.zeros((2, 2, 3), np.uint8), **changes))
    assert load_dataset(f"arrays:{tmp_path / 'x.npz'}").train_labels.tolist() == [0, 1, 0, 1, 1, 0]


def without(key: str) -> dict[str, Any]:
    return {name: array for name, array in arrays().items() if name != key}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (without("test_labels"), "test_labels is missing"),
        (arrays(extra=np.zeros(3)), "not 'extra'"),
        (arrays(val_images=np.zeros((1, 2, 3), np.uint8)), "val_labels is missing"),
        (
            arrays(val_images=np.zeros((1, 2, 4), np.uint8), val_labels=np.array([0])),
            r"train and val images must have the same shape, not \(2, 3\) and \(2, 4\)",
        ),
        (
            arrays(val_images=np.zeros((1, 2, 3), np.uint8), val_labels=np.zeros((1, 2))),
            r"val_labels must be whole numbers \(1,\), one for each image, not float64 \(1, 2\)",
        ),
        (
            arrays(val_images=np.zeros((1, 2, 3), np.uint8), val_labels=np.array([2**64 - 1], np.uint64)),
            r"train_labels must be 0 to 2 \(3 classes\)",
        ),
        (arrays(class_names=np.array([1, 2])), "class_names must be an array of text"),
        (arrays(class_names=np.array("one")), "class_names must be an array of text"),
        (arrays(train_labels=np.array([0, 1, 0, "1"], dtype=object)), "train_labels must be plain numbers or text"),
        (
            arrays(train_labels=np.array([0.0, 1, 0, 1])),
            "train_labels must be whole numbers .*, one for each image, not ",
        ),
    ],
)
def test_invalid_arrays_are_an_error(tmp_path: Path, content: dict[str, Any], rule: str) -> None:
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(DataError, match=rule) as caught:
        load_dataset(f"arrays:{tmp_path / 'x.npz'}")
    assert caught.value.value == f"arrays:{tmp_path / 'x.npz'}"


def npz_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays())
    return stream.getvalue()


def npy_bytes() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


def bare_zip_bytes() -> bytes:
    """Return an archive whose members have the right names but are not arrays."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for key in arrays():
            archive.writestr(key, b"text")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "must be a .npz file"),
        (b"text", "must be a .npz file"),
        (npz_bytes()[:200], "must be a .npz file"),
        (npz_bytes()[:-30], "must be a .npz file"),
        (npy_bytes(), "not a single array"),
        (bare_zip_bytes(), "train_images must be an array"),
        (npz_bytes().replace(b"'shape': (4, 2, 3)", b"'shape': (4, 2, 9)"), "train_images is damaged"),
        (npz_bytes().replace(bytes(range(20)), bytes(20)), "train_images is damaged"),
    ],
)
def test_damaged_files_are_an_error(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=rule) as caught:
        load_dataset(f"arrays:{tmp_path / 'x.npz'}")
    assert "\n" not in str(caught.value)


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    with pytest.raises(DataError, match=r"must be a \.npz file"):
        load_dataset(f"arrays:{tmp_path / 'x.npz'}")
    np.savez(tmp_path / "y.npz", **arrays(train_labels=np.array([Trap(tmp_path / "executed")], dtype=object)))
    with pytest.raises(DataError, match="not pickled objects"):
        load_dataset(f"arrays:{tmp_path / 'y.npz'}")
    assert not (tmp_path / "executed").exists()


def test_missing_files_and_folders_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_dataset(f"arrays:{tmp_path / 'x.npz'}")
    with pytest.raises(DataError, match="is a folder"):
        load_dataset(f"arrays:{tmp_path}")
