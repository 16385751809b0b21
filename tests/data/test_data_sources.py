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

from budgetnet.common.errors import DataError
from budgetnet.data import load_dataset


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mnist", None),
        ("", None),
        ("digit", "digits"),
        ("CIFAR10", "cifar10"),
        ("cifar-10", "cifar10"),
        ("cifar100:/data", "cifar10"),
        ("folders:/data", "folder"),
        ("array:x.npz", "arrays"),
        ("digits:/data", None),
        ("cifar10:", None),
        ("folder:", None),
        ("arrays", None),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones(name: str, hint: str | None) -> None:
    with pytest.raises(DataError, match="must be digits, cifar10, cifar10:PATH, folder:PATH or arrays:") as caught:
        load_dataset(name)
    assert caught.value.value == name
    assert caught.value.rule.endswith(f"did you mean {hint}?" if hint else "arrays:PATH.npz")


def test_an_unknown_home_is_told() -> None:
    with pytest.raises(DataError, match="no such home folder"):
        load_dataset("arrays:~nobody-of-this-name/x.npz")


@pytest.mark.parametrize("kind", ["cifar10", "folder", "arrays"])
def test_a_path_with_a_zero_character_is_told(kind: str) -> None:
    with pytest.raises(DataError, match="zero character"):
        load_dataset(f"{kind}:a\0b")


def test_digits_are_scaled_and_split_for_ever(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    dataset = load_dataset("digits")
    assert (dataset.num_train, dataset.num_test, dataset.num_classes) == (1437, 360, 10)
    assert dataset.input_shape == (1, 8, 8)
    assert dataset.train_images.max() == 255
    assert not dataset.is_original_cifar10
    images, labels = dataset.test.open(reason="check", by="test", log=tmp_path / "log")
    assert np.bincount(labels).min() >= 34

    # Every image of the source is in exactly one part, with its label; 16 shades stay 17 distinct values.
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


def test_arrays_are_loaded_under_the_name_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", **arrays(class_names=np.array(["no", "yes"])))
    monkeypatch.setenv("HOME", str(tmp_path))
    dataset = load_dataset("arrays:~/x.npz")
    assert dataset.name == "arrays:~/x.npz"
    assert dataset.class_names == ("no", "yes")
    np.testing.assert_array_equal(dataset.train_images[:, 0], arrays()["train_images"])
    monkeypatch.chdir(tmp_path)
    assert load_dataset("arrays:./x.npz").name == "arrays:./x.npz"


def without(key: str) -> dict[str, Any]:
    return {name: array for name, array in arrays().items() if name != key}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (without("test_labels"), "test_labels is missing"),
        (arrays(extra=np.zeros(3)), "and not 'extra'"),
        (arrays(class_names=np.array([1, 2])), "class_names must be an array of text"),
        (arrays(class_names=np.array("one")), "class_names must be an array of text"),
        (arrays(train_labels=np.array([0, 1, 0, "1"], dtype=object)), "train_labels must be plain numbers or text"),
        (arrays(train_labels=np.array([0.0, 1, 0, 1])), "train_labels must be whole numbers, one for each image"),
    ],
)
def test_wrong_content_is_told(tmp_path: Path, content: dict[str, Any], rule: str) -> None:
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(DataError, match=rule) as caught:
        load_dataset(f"arrays:{tmp_path / 'x.npz'}")
    assert caught.value.value == f"arrays:{tmp_path / 'x.npz'}"


class Trap:
    """Makes a file when it is unpickled."""

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
    """An archive whose members have the right names and are no arrays."""
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
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=rule) as caught:
        load_dataset(f"arrays:{tmp_path / 'x.npz'}")
    assert "\n" not in str(caught.value)


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DataError, match=r"must be a \.npz file"):
        load_dataset(f"arrays:{tmp_path / 'x.npz'}")
    np.savez(tmp_path / "y.npz", **arrays(train_labels=np.array([Trap(tmp_path / "sprung")], dtype=object)))
    with pytest.raises(DataError, match="not pickled objects"):
        load_dataset(f"arrays:{tmp_path / 'y.npz'}")
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_dataset(f"arrays:{tmp_path / 'x.npz'}")
    with pytest.raises(DataError, match="is a folder"):
        load_dataset(f"arrays:{tmp_path}")


class OldPickler(pickle.Pickler):
    """Writes array types with a number for a yes or no, as old numpy did, so that reading them warns.

    CIFAR-10's own files have 0 there, at which only some versions of numpy warn; at 2 all later ones do.
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
    """CIFAR-10's files in small, 20 images each, with torchvision brought to expect their checksums."""
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
    # Nothing listens there, so whatever tries to download fails at once and never leaves this machine.
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


@pytest.mark.filterwarnings("ignore:dtype")  # for what this test itself reads; the next one is strict
def test_cifar10_that_is_there_is_loaded_without_a_download(
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


def test_files_of_old_numpy_load_without_a_warning(tmp_path: Path, batch_files: dict[str, bytes]) -> None:
    write_batches(tmp_path, batch_files)
    assert load_dataset(f"cifar10:{tmp_path}").num_train == 100


@pytest.mark.parametrize("variable", ["BUDGETNET_DATA", "HOME"])
def test_cifar10_has_a_place_of_its_own(
    tmp_path: Path, batch_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("BUDGETNET_DATA", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    write_batches(tmp_path / ("cifar10" if variable == "BUDGETNET_DATA" else ".cache/budgetnet/cifar10"), batch_files)
    assert load_dataset("cifar10").num_test == 20


def test_without_a_network_it_says_where_the_files_belong(tmp_path: Path, batch_files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        load_dataset(f"cifar10:{tmp_path / 'here'}")
    rule = caught.value.rule
    assert "cifar-10-python.tar.gz" in rule
    assert str(tmp_path / "here") in rule
    assert "\n" not in rule


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, batch_files: dict[str, bytes]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_dataset(f"cifar10:{tmp_path / 'file' / 'deeper'}")


@pytest.mark.parametrize("victim", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_file_with_a_wrong_checksum_is_never_opened(
    tmp_path: Path, batch_files: dict[str, bytes], victim: str
) -> None:
    write_batches(tmp_path, {**batch_files, victim: pickle.dumps(Trap(tmp_path / "sprung"))})
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_dataset(f"cifar10:{tmp_path}")
    assert not (tmp_path / "sprung").exists()


def test_an_archive_supplied_by_hand_is_unpacked(
    tmp_path: Path, batch_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive_of(batch_files, monkeypatch))
    assert load_dataset(f"cifar10:{tmp_path}").num_train == 100


def test_an_answer_that_is_not_http_is_told(
    tmp_path: Path, batch_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    def answer_nonsense(server: socket.socket) -> None:
        with server.accept()[0] as connection:
            connection.recv(10_000)
            connection.sendall(b"nonsense\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_nonsense, args=(server,))
        thread.start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.getsockname()[1]}/x.tar.gz")
        with pytest.raises(DataError, match="cannot be downloaded"):
            load_dataset(f"cifar10:{tmp_path}")
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        pass


def test_a_download_is_silent_off_a_terminal(
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
