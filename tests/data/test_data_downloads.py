"""Data sets that torchvision downloads, from files in their original formats."""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.io import savemat
from support import RunCommand
from torchvision import datasets

from budgetnet.common.errors import DataError
from budgetnet.data import load_dataset
from budgetnet.data.downloads import needs_download
from budgetnet.data.names import DOWNLOADS

Array = npt.NDArray[np.uint8]
Files = dict[str, bytes]

COUNTS = {"train": 20, "test": 10}
UNREACHABLE = "https://127.0.0.1:9/"
"""Nothing listens there, so every download fails at once without network access."""


class Original:
    """A few images in the original format of a data set, and what must be read from them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        random = np.random.default_rng(0)
        self.images = {part: random.integers(0, 256, (count, *shape), dtype=np.uint8) for part, count in COUNTS.items()}
        self.labels = {part: np.arange(count) % 10 for part, count in COUNTS.items()}


def idx(array: Array) -> bytes:
    """Return bytes in the format that LeCun's page describes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def idx_files(original: Original) -> Files:
    files = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        files[f"{prefix}-images-idx3-ubyte"] = idx(original.images[part])
        files[f"{prefix}-labels-idx1-ubyte"] = idx(original.labels[part].astype(np.uint8))
    return files


def expect_checksums(
    monkeypatch: pytest.MonkeyPatch, reader: Any, files: Files, *, train: list[str], test: list[str]
) -> None:
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(reader, "train_list", [[name, sums[name]] for name in train])
    monkeypatch.setattr(reader, "test_list", [[name, sums[name]] for name in test])
    if "meta" in files:
        monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": sums["meta"]})
    monkeypatch.setattr(reader, "url", UNREACHABLE + "archive.tar.gz")


def cifar100(original: Original, monkeypatch: pytest.MonkeyPatch) -> Files:
    files = {
        part: pickle.dumps(
            {
                "data": original.images[part].transpose(0, 3, 1, 2).reshape(-1, 3072),
                "fine_labels": original.labels[part].tolist(),
                "coarse_labels": [0] * COUNTS[part],
            },
            protocol=2,
        )
        for part in COUNTS
    }
    files["meta"] = pickle.dumps({"fine_label_names": [f"fine {number}" for number in range(10)]}, protocol=2)
    expect_checksums(monkeypatch, datasets.CIFAR100, files, train=["train"], test=["test"])
    return files


def svhn(original: Original, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Files:
    files, splits = {}, {}
    for part in COUNTS:
        labels = np.where(original.labels[part] == 0, 10, original.labels[part])[:, np.newaxis]
        savemat(folder / "made.mat", {"X": original.images[part].transpose(1, 2, 3, 0), "y": labels})
        name = f"{part}_32x32.mat"
        files[name] = (folder / "made.mat").read_bytes()
        splits[part] = [UNREACHABLE + name, name, hashlib.md5(files[name]).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", splits)
    return files


def stl10(original: Original, monkeypatch: pytest.MonkeyPatch) -> Files:
    files = {"unlabeled_X.bin": b"", "class_names.txt": "\n".join(f"thing {number}" for number in range(10)).encode()}
    for part in COUNTS:
        # Column-major, as Matlab writes.
        files[f"{part}_X.bin"] = original.images[part].transpose(0, 3, 2, 1).tobytes()
        files[f"{part}_y.bin"] = (original.labels[part] + 1).astype(np.uint8).tobytes()
    train, test = ["train_X.bin", "train_y.bin", "unlabeled_X.bin"], ["test_X.bin", "test_y.bin"]
    expect_checksums(monkeypatch, datasets.STL10, files, train=train, test=test)
    return files


FOLDERS = {
    "cifar100": "cifar-100-python",
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
    "kmnist": "KMNIST/raw",
    "svhn": "",
    "stl10": "stl10_binary",
}
CLASSES = {
    "cifar100": "fine 3",
    "mnist": "3",
    "fashion-mnist": "Dress",
    "kmnist": "tsu",
    "svhn": "3",
    "stl10": "thing 3",
}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], tuple[Original, Files]]:
    """Make the files of a data set, whose checksums torchvision is patched to expect where it verifies them."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for reader in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST):
        monkeypatch.setattr(reader, "mirrors", [UNREACHABLE])

    def made(kind: str) -> tuple[Original, Files]:
        side = 96 if kind == "stl10" else 32
        original = Original((28, 28) if kind.endswith("mnist") else (side, side, 3))
        if kind == "svhn":
            return original, svhn(original, monkeypatch, tmp_path)
        if kind.endswith("mnist"):
            return original, idx_files(original)
        return original, {"cifar100": cifar100, "stl10": stl10}[kind](original, monkeypatch)

    return made


def write(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.filterwarnings("ignore:dtype")
@pytest.mark.parametrize("kind", FOLDERS)
def test_original_files_are_read(kind: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, files = make(kind)
    name = f"{kind}:{tmp_path / 'data'}"
    assert needs_download(name)
    write(tmp_path / "data" / FOLDERS[kind], files)
    assert not needs_download(name)
    dataset = load_dataset(name)
    images, labels = dataset.test.open(reason="check", by="test", log=tmp_path / "log")
    for part, found, numbers in (("train", dataset.train_images, dataset.train_labels), ("test", images, labels)):
        expected = original.images[part]
        expected = expected[:, np.newaxis] if expected.ndim == 3 else expected.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(numbers, original.labels[part])
    assert (dataset.num_classes, dataset.class_names[3]) == (10, CLASSES[kind])
    assert not dataset.is_original_cifar10
    # By its bare name it is looked for in the folder for downloads.
    monkeypatch.setenv("BUDGETNET_DATA", str(tmp_path / "all"))
    (tmp_path / "all").mkdir()
    (tmp_path / "data").rename(tmp_path / "all" / kind)
    assert load_dataset(kind).fingerprint == dataset.fingerprint


@pytest.mark.parametrize("kind", [kind for kind, folder in FOLDERS.items() if folder])
def test_a_folder_of_the_files_themselves_is_read(kind: str, make: Any, tmp_path: Path) -> None:
    original, files = make(kind)
    dataset = load_dataset(f"{kind}:{write(tmp_path / 'flat', files)}")
    np.testing.assert_array_equal(dataset.train_labels, original.labels["train"])
    assert sorted(path.name for path in (tmp_path / "flat").iterdir()) == sorted(files)


@pytest.mark.parametrize("kind", FOLDERS)
def test_missing_files_are_downloaded_or_named(kind: str, make: Any, tmp_path: Path) -> None:
    _, files = make(kind)
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        load_dataset(f"{kind}:{tmp_path / 'none'}")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "none") in caught.value.rule
    manual = caught.value.rule.partition("to install it manually")[2]
    assert ".tar.gz from https" in manual or all(name in manual for name in files)


@pytest.mark.parametrize("kind", ["mnist", "kmnist"])
@pytest.mark.parametrize("content", [b"", b"no such file", struct.pack(">BBBBI", 0, 0, 8, 1, 99)])
def test_damaged_files_are_named(kind: str, content: bytes, make: Any, tmp_path: Path) -> None:
    _, files = make(kind)
    folder = write(tmp_path / FOLDERS[kind], {**files, "t10k-labels-idx1-ubyte": content})
    with pytest.raises(DataError) as caught:
        load_dataset(f"{kind}:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert str(folder.parent.parent) in caught.value.rule


def test_every_name_is_in_the_help_and_completed(tell: RunCommand) -> None:
    from budgetnet.cli.completion import BY_METAVAR
    from budgetnet.study.config import SearchConfig

    shown = " ".join(tell("train", "--help").out.replace("│", " ").split())
    field = SearchConfig.model_fields["data"].description or ""
    for name in DOWNLOADS:
        assert f" {name}," in shown
        assert f" {name}," in field
        assert {name, f"{name}:"} <= set(BY_METAVAR["DATA"]())
