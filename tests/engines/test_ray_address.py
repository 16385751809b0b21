"""Which cluster a command connects to, and addresses where there is none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budgetnet.common.errors import InputError
from budgetnet.engines import ray_address, ray_engine
from budgetnet.engines.ray_address import find_cluster
from budgetnet.engines.ray_engine import RayEngine
from budgetnet.training.callbacks import Callback


@pytest.fixture(autouse=True)
def _no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_address, "_CONNECT_SECONDS", 0.2)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def speaking() -> Iterator[str]:
    """The address of a server that begins as HTTP/2 servers do: with settings, here one of six bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes([0, 4, 0, 0, 255, 255]))

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def started_here(address: str, folder: Path) -> None:
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text(address)


def test_a_cluster_is_found_by_its_address(speaking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", speaking)
    assert find_cluster() == speaking


def test_a_cluster_started_on_this_machine_is_found(speaking: str, tmp_path: Path) -> None:
    started_here(speaking, tmp_path)
    assert find_cluster() == "auto"


def test_one_that_was_killed_is_not_waited_for(silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started_here(silent, tmp_path)
    assert find_cluster() is None
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(InputError, match=r"^RAY_ADDRESS = 'auto': no Ray cluster answers there"):
        find_cluster()


def test_without_an_address_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cluster() is None
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert find_cluster() is None


def test_what_answers_nothing_or_is_no_address_is_refused(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (silent, "127.0.0.1:1", "127.0.0.1:99999999", "somewhere"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match=f"^RAY_ADDRESS = '{address}': no Ray cluster answers there"):
            find_cluster()
    for address in ("ray://127.0.0.1:10001", "http://127.0.0.1:8265"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match=f"^RAY_ADDRESS = '{address}': must be HOST:PORT"):
            find_cluster()


def test_a_cluster_that_cannot_be_used_leaves_nothing_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "runs"

    def refuse() -> bool:
        assert len(list(store.iterdir())) == 1, "what workers are to find"
        raise InputError("RAY_ADDRESS", "10.0.0.1:1", "cannot be used")

    monkeypatch.setattr(ray_engine, "connect", refuse)
    nothing: Any = None
    engine = RayEngine(nothing, out=store, device="cpu", workers=1, per_gpu=1, store=None)
    with pytest.raises(InputError, match="cannot be used"):
        engine.run(nothing, Callback())
    assert not list(store.iterdir())
