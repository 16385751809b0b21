"""CIFAR-10: its files, archive, checksums and download."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import pickle
import socket
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import Trap, snapshot

from budgetnet.common.errors import DataError
from budgetnet.data import load_dataset
from budgetnet.data.downloads import needs_download


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
