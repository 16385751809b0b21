"""Names of data sources, and the digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from budgetnet.common.errors import DataError
from budgetnet.data import load_dataset


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("imagenet", None),
        ("", None),
        ("mnist:", None),
        ("MNIST", "mnist"),
        ("fashionmnist:/data", "fashion-mnist"),
        ("digit", "digits"),
        ("CIFAR10", "cifar10"),
        ("cifar-10", "cifar10"),
        ("folders:/data", "folder"),
        ("array:x.npz", "arrays"),
        ("digits:/data", None),
        ("cifar10:", None),
        ("folder:", None),
        ("arrays", None),
    ],
)
def test_unknown_name_lists_the_known_ones(name: str, hint: str | None) -> None:
    with pytest.raises(DataError, match=r"must be digits, cifar10, .*, folder:PATH or arrays:PATH") as caught:
        load_dataset(name)
    assert caught.value.value == name
    assert caught.value.rule.endswith(f"did you mean {hint}?" if hint else "arrays:PATH.npz")


def test_missing_home_folder_is_an_error() -> None:
    with pytest.raises(DataError, match="home folder does not exist"):
        load_dataset("arrays:~nobody-of-this-name/x.npz")


@pytest.mark.parametrize("kind", ["cifar10", "mnist", "folder", "arrays"])
def test_path_with_a_null_character_is_an_error(kind: str) -> None:
    with pytest.raises(DataError, match="null character"):
        load_dataset(f"{kind}:a\0b")


@pytest.mark.parametrize("kind", ["cifar10", "mnist", "svhn", "stl10", "folder", "arrays"])
@pytest.mark.parametrize("path", ["x" * 300, f"{'x' * 300}/y.npz", "/".join(["x" * 200] * 21)])
def test_a_path_too_long_for_a_file_is_an_error_of_one_line(kind: str, path: str, folder: Path) -> None:
    with pytest.raises(DataError, match="File name too long") as caught:
        load_dataset(f"{kind}:{path}")
    assert caught.value.field == "data"
    assert "\n" not in str(caught.value)


def test_digits_are_scaled_and_split_reproducibly(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    dataset = load_dataset("digits")
    assert (dataset.num_train, dataset.num_test, dataset.num_classes) == (1437, 360, 10)
    assert dataset.input_shape == (1, 8, 8)
    assert dataset.train_images.max() == 255
    assert not dataset.is_original_cifar10
    images, labels = dataset.test.open(reason="check", by="test", log=tmp_path / "log")
    assert np.bincount(labels).min() >= 34

    # Every source image is in exactly one part, with its label; the 17 grey levels stay distinct.
    source_images, source_labels = load_digits(return_X_y=True)
    source = sorted((tuple(np.floor(x * 255 / 16 + 0.5)), y) for x, y in zip(source_images, source_labels, strict=True))
    ours = sorted(
        (tuple(image.flatten().astype(float)), label)
        for part in ((dataset.train_images, dataset.train_labels), (images, labels))
        for image, label in zip(*part, strict=True)
    )
    assert [label for _, label in ours] == [label for _, label in source]
    np.testing.assert_array_equal([image for image, _ in ours], [image for image, _ in source])
    assert dataset.fingerprint == "b987628014a7e7d8419794982a7d28f86c6e8f51839ac69d84d788713f0e4a9e"
