"""All 60,000 images of CIFAR-10, from the sheets in the folder ``BUDGETNET_SHARED_DATA``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from budgetnet.data import load_dataset, split

SHARED = Path(os.environ.get("BUDGETNET_SHARED_DATA", "no-such-folder"))
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SHARED / "unpack.py").is_file(), reason="no CIFAR-10 sheets in BUDGETNET_SHARED_DATA"),
]


def unpack(*arguments: str) -> None:
    subprocess.run([sys.executable, str(SHARED / "unpack.py"), *arguments], check=True)


def test_cifar10_is_identical_from_arrays_and_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDGETNET_CACHE", str(tmp_path / "cache"))
    unpack(str(tmp_path / "sheets.npz"))
    unpack("--folder", str(tmp_path / "sheets"))
    from_arrays = load_dataset(f"arrays:{tmp_path / 'sheets.npz'}")
    assert (from_arrays.num_train, from_arrays.num_test, from_arrays.num_classes) == (50_000, 10_000, 10)
    assert from_arrays.input_shape == (3, 32, 32)
    assert np.bincount(from_arrays.train_labels).tolist() == [5_000] * 10
    # Published values, to four digits.
    np.testing.assert_allclose(from_arrays.mean, (0.4914, 0.4822, 0.4465), atol=1e-4)
    np.testing.assert_allclose(from_arrays.std, (0.2470, 0.2435, 0.2616), atol=1e-4)
    assert not from_arrays.is_original_cifar10

    decoded = []
    for _ in range(2):  # decoded, then from the cache
        from_folder = load_dataset(f"folder:{tmp_path / 'sheets'}", progress=lambda done, _: decoded.append(done))
        assert from_folder.class_names == CLASSES
        assert from_folder.fingerprint == from_arrays.fingerprint
        np.testing.assert_array_equal(from_folder.train_images, from_arrays.train_images)
        np.testing.assert_array_equal(from_folder.train_labels, from_arrays.train_labels)
        assert decoded[-1] == 60_000
        assert decoded.count(60_000) == 1

    parts = split(from_arrays.train_labels, validation_fraction=0.1, seed=0, train_size=10_000)
    assert np.bincount(from_arrays.train_labels[parts.validation]).tolist() == [500] * 10
    assert np.bincount(from_arrays.train_labels[parts.train]).tolist() == [1_000] * 10
