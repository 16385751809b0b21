"""Data sources by name: digits, arrays and CIFAR-10."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import pickle
import socket
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import snapshot

from budgetnet.common.errors import DataError
from budgetnet.data import load_dataset
from budgetnet.data.downloads import needs_download


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


class Trap:
    """Object that creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


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


class OldPickler(pickle.Pickler):
    """Pickler that writes array types with an integer for a flag, as old numpy did, so that reading them warns.

    The files of CIFAR-10 have 0 there, for which only some versions of numpy warn; for 2 all later ones do.
    """

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, np.dtype):
            return np.dtype, (value.str[1:], 2, 1)
        return NotImplemented


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    OldPickler(stream, protocol=2).dump(value)
    return stream.getvalue()


@pytest.fixture
def batch_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return CIFAR-10 files of 20 images each, whose checksums torchvision is patched to expect."""
    from torchvision.datasets import CIFAR10

    random = np.random.default_rng(0)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    files = {
        name: pickled({"data": random.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": list(range(10)) * 2})
        for name in names
    }
    files["batches.meta"] = pickled({"label_names": [f"class {number}" for number in range(10)]})
    checksums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, checksums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", checksums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": checksums["batches.meta"]})
    # Nothing listens there, so every download fails at once without network access.
    monkeypatch.setattr(CIFAR10, "url", "https://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return files


def write_batches(root: Path, files: dict[str, bytes]) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def archive_of(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> bytes:
    from torchvision.datasets import CIFAR10

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(stream.getvalue()).hexdigest())
    return stream.getvalue()


def images_in(files: dict[str, bytes], name: str) -> npt.NDArray[np.uint8]:
    rows: npt.NDArray[np.uint8] = pickle.loads(files[name])["data"]
    return rows.reshape(-1, 3, 32, 32)


@pytest.mark.filterwarnings("ignore:dtype")  # from unpickling in this test; the next test checks for warnings
def test_existing_cifar10_is_loaded_without_a_download(
    tmp_path: Path, batch_files: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    write_batches(tmp_path, batch_files)
    dataset = load_dataset(f"cifar10:{tmp_path}")
    assert dataset.is_original_cifar10
    assert dataset.name == f"cifar10:{tmp_path}"
    assert dataset.provenance == "original CIFAR-10, checksums verified by torchvision"
    assert dataset.mean == (0.4914, 0.4822, 0.4465)
    assert dataset.std == (0.2023, 0.1994, 0.2010)
    assert dataset.class_names == tuple(f"class {number}" for number in range(10))
    expected = np.concatenate([images_in(batch_files, f"data_batch_{number}") for number in range(1, 6)])
    np.testing.assert_array_equal(dataset.train_images, expected)
    assert dataset.train_labels.tolist() == list(range(10)) * 10
    images, labels = dataset.test.open(reason="check", by="test", log=tmp_path / "log")
    np.testing.assert_array_equal(images, images_in(batch_files, "test_batch"))
    assert labels.tolist() == list(range(10)) * 2
    assert capfd.readouterr() == ("", "")


def test_cifar10_loads_without_a_warning(tmp_path: Path, batch_files: dict[str, bytes]) -> None:
    write_batches(tmp_path, batch_files)
    assert load_dataset(f"cifar10:{tmp_path}").num_train == 100


@pytest.mark.parametrize("variable", ["BUDGETNET_DATA", "HOME"])
def test_default_folder_of_cifar10(
    tmp_path: Path, batch_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("BUDGETNET_DATA", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    write_batches(tmp_path / ("cifar10" if variable == "BUDGETNET_DATA" else ".cache/budgetnet/cifar10"), batch_files)
    assert load_dataset("cifar10").num_test == 20


def test_failed_download_says_where_to_put_the_files(tmp_path: Path, batch_files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        load_dataset(f"cifar10:{tmp_path / 'here'}")
    rule = caught.value.rule
    assert "cifar-10-python.tar.gz" in rule
    assert str(tmp_path / "here") in rule
    assert "\n" not in rule


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path, batch_files: dict[str, bytes]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_dataset(f"cifar10:{tmp_path / 'file' / 'deeper'}")


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "renamed"])
def test_a_folder_of_batches_is_loaded_and_never_downloaded_to(
    tmp_path: Path, batch_files: dict[str, bytes], folder: str
) -> None:
    write_batches(tmp_path, batch_files)
    where = (tmp_path / "cifar-10-batches-py").rename(tmp_path / folder)
    dataset = load_dataset(f"cifar10:{where}")
    assert dataset.is_original_cifar10
    assert not needs_download(f"cifar10:{where}")
    (where / "data_batch_4").write_bytes(b"damaged")
    before = snapshot(tmp_path)
    with pytest.raises(DataError, match=f"cannot be read .*a file in {where} is missing or damaged"):
        load_dataset(f"cifar10:{where}")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("victim", ["data_batch_3", "test_batch", "batches.meta"])
def test_files_with_a_wrong_checksum_are_not_unpickled(
    tmp_path: Path, batch_files: dict[str, bytes], victim: str
) -> None:
    write_batches(tmp_path, {**batch_files, victim: pickle.dumps(Trap(tmp_path / "executed"))})
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_dataset(f"cifar10:{tmp_path}")
    assert not (tmp_path / "executed").exists()


def test_an_existing_archive_is_extracted(
    tmp_path: Path, batch_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive_of(batch_files, monkeypatch))
    assert load_dataset(f"cifar10:{tmp_path}").num_train == 100


def test_invalid_http_response_is_an_error(
    tmp_path: Path, batch_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    def send_invalid_response(server: socket.socket) -> None:
        with server.accept()[0] as connection:
            connection.recv(10_000)
            connection.sendall(b"nonsense\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=send_invalid_response, args=(server,))
        thread.start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.getsockname()[1]}/x.tar.gz")
        with pytest.raises(DataError, match="cannot be downloaded"):
            load_dataset(f"cifar10:{tmp_path}")
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - name of the base class's parameter
        pass


def test_download_prints_nothing_outside_a_terminal(
    tmp_path: Path, batch_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from torchvision.datasets import CIFAR10

    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "cifar-10-python.tar.gz").write_bytes(archive_of(batch_files, monkeypatch))
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz")
        try:
            assert load_dataset(f"cifar10:{tmp_path / 'here'}").num_train == 100
        finally:
            server.shutdown()
            thread.join()
    assert capfd.readouterr() == ("", "")
