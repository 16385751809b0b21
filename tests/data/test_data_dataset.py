"""Data sets from arrays: validation, fingerprint, statistics and the sealed test set."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from budgetnet.common.errors import DataError
from budgetnet.data import DataSet, SealedTestSet, read_openings
from budgetnet.data.dataset import make_dataset, pixel_statistics


def valid_arrays(**changes: Any) -> dict[str, Any]:
    """Return arrays of three classes and 4x5 pixels in colour, with changes applied."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "train_images": random.integers(0, 256, (7, 4, 5, 3), dtype=np.uint8),
        "train_labels": np.array([0, 1, 2, 0, 1, 2, 0], dtype=np.uint8),
        "test_images": random.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8),
        "test_labels": np.array([2, 1, 0], dtype=np.int16),
    }
    return {"name": "arrays:x.npz", "provenance": "made up", **arrays, **changes}


def test_arrays_are_stored_channels_first_and_read_only() -> None:
    arrays = valid_arrays(class_names=["a", "b", "c"])
    dataset = make_dataset(**arrays)
    assert dataset.input_shape == (3, 4, 5)
    assert (dataset.num_train, dataset.num_test, dataset.num_classes) == (7, 3, 3)
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.train_images.flags.c_contiguous
    for image, channel, row, column in np.ndindex(dataset.train_images.shape):
        stored = dataset.train_images[image, channel, row, column]
        assert stored == arrays["train_images"][image, row, column, channel]
    assert dataset.train_labels.dtype == np.int64
    assert dataset.train_labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(ValueError, match="read-only"):
        dataset.train_images[0, 0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.train_labels[0] = 1


def test_grey_images_need_no_channel_axis() -> None:
    arrays = valid_arrays()
    flat = {key: arrays[key][..., 0] for key in ("train_images", "test_images")}
    kept = {key: arrays[key][..., :1] for key in ("train_images", "test_images")}
    without, with_axis = make_dataset(**valid_arrays(**flat)), make_dataset(**valid_arrays(**kept))
    assert without.input_shape == with_axis.input_shape == (1, 4, 5)
    assert without.fingerprint == with_axis.fingerprint


def test_default_class_names_are_the_class_numbers() -> None:
    assert make_dataset(**valid_arrays()).class_names == ("0", "1", "2")


def test_fingerprint_ignores_only_names_and_label_type() -> None:
    base = make_dataset(**valid_arrays()).fingerprint
    assert len(base) == 64
    same = valid_arrays(
        name="other", provenance="elsewhere", train_labels=valid_arrays()["train_labels"].astype(np.int64)
    )
    assert make_dataset(**same).fingerprint == base
    assert make_dataset(**valid_arrays(class_names=["x", "y", "z"])).fingerprint == base

    seen = {base}
    for key in ("train_images", "test_images"):
        changed = valid_arrays()[key].copy()
        changed[0, 0, 0, 0] ^= 1
        seen.add(make_dataset(**valid_arrays(**{key: changed})).fingerprint)
    seen.add(make_dataset(**valid_arrays(train_labels=np.array([0, 1, 2, 0, 1, 2, 1]))).fingerprint)
    seen.add(make_dataset(**valid_arrays(test_labels=np.array([2, 1, 1]))).fingerprint)
    transposed = {key: valid_arrays()[key].transpose(0, 2, 1, 3) for key in ("train_images", "test_images")}
    seen.add(make_dataset(**valid_arrays(**transposed)).fingerprint)
    reshaped = {key: valid_arrays()[key].reshape(-1, 5, 4, 3) for key in ("train_images", "test_images")}
    seen.add(make_dataset(**valid_arrays(**reshaped)).fingerprint)
    assert len(seen) == 7


def labels(*values: float, dtype: Any = np.int64) -> npt.NDArray[Any]:
    return np.array(values, dtype=dtype)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"train_images": np.zeros((7, 4, 5, 3), np.float32)}, "train_images must be uint8"),
        ({"test_images": np.zeros((3, 4, 5, 2), np.uint8)}, "test_images must have the shape"),
        ({"train_images": np.zeros((7, 20), np.uint8)}, "train_images must have the shape"),
        ({"train_images": np.zeros((7, 3, 4, 5), np.uint8)}, "train_images must have the shape"),
        ({"test_images": np.zeros((0, 4, 5, 3), np.uint8), "test_labels": labels()}, "at least one image"),
        ({"test_images": np.zeros((3, 0, 5, 3), np.uint8)}, "at least one pixel"),
        ({"test_images": np.zeros((3, 5, 4, 3), np.uint8)}, "must have the same shape"),
        ({"train_labels": labels(0, 1, 2, 0, 1, 2, 0.5, dtype=np.float64)}, "train_labels must be whole numbers"),
        ({"train_labels": labels(0, 1, 1, 0, 1, 1, 0, dtype=np.bool_)}, "train_labels must be whole numbers"),
        ({"train_labels": labels(0, 1, 2)}, "train_labels must be whole numbers .*, one for each image, not "),
        ({"test_labels": np.zeros((3, 1), np.int64)}, "test_labels must be whole numbers .*, one for each image, not "),
        ({"test_labels": labels(0, 1, -1)}, "test_labels must be 0 to 2 .*, not -1"),
        ({"test_labels": labels(0, 1, 3)}, "test_labels must be 0 to 2 .*, not 3"),
        ({"train_labels": labels(0, 1, 9, 0, 1, 9, 0)}, r"train_labels must be 0 to 2 \(3 classes\), not 9"),
        ({"train_labels": labels(*[0, 1, 2**63] * 2, 0, dtype=np.uint64)}, "train_labels must be 0 to 2"),
        ({"train_labels": labels(*[0] * 7), "test_labels": labels(0, 0, 0)}, "at least 2 classes, not 1"),
        ({"class_names": ["a", "b"]}, "train_labels must be 0 to 1"),
        ({"class_names": ["a", "b", "c", "d"]}, "every class needs a training image, class 'd' has none"),
        ({"class_names": ["a", "b", "a"]}, "class names must differ"),
        ({"class_names": ["a", "b", "c\n"]}, "class names must be printable"),
        ({"class_names": ["a", "b", " "]}, "class names must be printable"),
    ],
)
def test_invalid_arrays_raise_one_line_errors(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(DataError, match=rule) as caught:
        make_dataset(**valid_arrays(**changes))
    assert caught.value.field == "data"
    assert caught.value.value == "arrays:x.npz"
    assert "\n" not in str(caught.value)


def test_statistics_equal_numpy() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2100, 3, 24, 24), dtype=np.uint8)
    images[:, 1] //= 3
    mean, std = pixel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_statistics_of_bright_pixels_equal_exact_integers() -> None:
    # The squares of one image sum to more than 2^24, beyond which float32 does not represent every integer.
    images = np.random.default_rng(2).integers(250, 256, (31, 1, 24, 24), dtype=np.uint8)
    values = images.ravel().tolist()
    count, total, total_of_squares = len(values), sum(values), sum(value * value for value in values)
    (mean,), (std,) = pixel_statistics(images)
    assert mean == total / count / 255
    assert std == (count * total_of_squares - total * total) ** 0.5 / count / 255


def test_standard_deviation_of_a_constant_channel_is_one() -> None:
    images = np.full((3, 2, 4, 4), 77, dtype=np.uint8)
    images[0, 1, 0, 0] = 78
    mean, std = pixel_statistics(images)
    assert mean[0] == pytest.approx(77 / 255)
    assert std[0] == 1.0
    assert 0 < std[1] < 0.01


def test_statistics_are_those_of_training_images_only() -> None:
    dataset = make_dataset(**valid_arrays(test_images=np.zeros((3, 4, 5, 3), np.uint8)))
    assert dataset.mean == pixel_statistics(dataset.train_images)[0]


@pytest.fixture
def dataset() -> DataSet:
    return make_dataset(**valid_arrays())


def test_opening_the_test_set_is_logged(dataset: DataSet, tmp_path: Path) -> None:
    log = tmp_path / "study" / "openings.jsonl"
    images, test_labels = dataset.test.open(reason="final\ncheck", by="run 1", log=log)
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), valid_arrays()["test_images"])
    assert test_labels.tolist() == [2, 1, 0]
    assert not images.flags.writeable
    dataset.test.open(reason="ünd again", by="run 2", log=log)

    assert log.read_text().count("\n") == 2
    first, second = read_openings(log)
    assert first["reason"] == "final\ncheck"
    assert (first["by"], first["count"], first["fingerprint"]) == ("run 1", 3, dataset.fingerprint)
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)
    assert (second["reason"], second["by"]) == ("ünd again", "run 2")


def test_test_set_stays_sealed_if_the_log_cannot_be_written(dataset: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for log in (tmp_path / "file" / "log", tmp_path):
        with pytest.raises(DataError, match="stays sealed"):
            dataset.test.open(reason="a reason", by="a test", log=log)


@pytest.mark.parametrize("blank", [{"reason": " "}, {"by": ""}])
def test_blank_reason_or_name_is_rejected(dataset: DataSet, tmp_path: Path, blank: dict[str, str]) -> None:
    with pytest.raises(DataError, match="must not be blank"):
        dataset.test.open(**{"reason": "a", "by": "b", **blank}, log=tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_test_arrays_have_no_other_public_access(dataset: DataSet) -> None:
    public = {name for name in dir(SealedTestSet) if not name.startswith("_")}
    assert public == {"count", "open", "relabelled"}
    assert repr(dataset.test) == "SealedTestSet(count=3)"
    assert not hasattr(dataset.test, "__dict__")


def test_incomplete_log_lines_do_not_affect_other_lines(dataset: DataSet, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read_openings(log) == []
    dataset.test.open(reason="first", by="a", log=log)
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:20])
    assert [opening["reason"] for opening in read_openings(log)] == ["first"]
    dataset.test.open(reason="second", by="a", log=log)
    assert [opening["reason"] for opening in read_openings(log)] == ["first", "second"]
    log.write_bytes(log.read_bytes() + b"\xff\x00")
    assert [opening["reason"] for opening in read_openings(log)] == ["first", "second"]


def test_reading_a_folder_as_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_openings(tmp_path)


def test_concurrent_openings_are_both_logged(dataset: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    write = os.write

    def write_after_another(descriptor: int, line: bytes) -> int:
        with log.open("ab") as other:
            other.write(b'{"by": "another"}\n')
        return write(descriptor, line)

    monkeypatch.setattr(os, "write", write_after_another)
    dataset.test.open(reason="a reason", by="this", log=log)
    assert [opening["by"] for opening in read_openings(log)] == ["another", "this"]


def test_test_set_stays_sealed_if_the_disk_is_full(
    dataset: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:10]))
    with pytest.raises(DataError, match="only part of the line"):
        dataset.test.open(reason="a reason", by="this", log=tmp_path / "log")


def test_importing_the_data_package_does_not_import_torch_or_scikit_learn() -> None:
    code = "import sys, budgetnet.data; print(sorted({'torch', 'torchvision', 'sklearn'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
