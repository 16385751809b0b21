"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_support import Runs, copy_runs, train_all
from hypothesis import settings
from postgres_support import PostgresServer, server_programs
from sqlalchemy import Pool, event
from support import CommandResult, RunCommand

from budgetnet.common import cpu
from budgetnet.data import DataSet, load_dataset
from budgetnet.training.threads import reset_threads


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a temporary folder the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def digits() -> DataSet:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def _trained(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_all(digits, folder)
    return folder


@pytest.fixture
def runs(_trained: Path, tmp_path: Path) -> Runs:
    """Hands out trained runs by their names, each test's own copies."""
    return lambda *names, out=None: copy_runs(_trained, out or tmp_path, *names)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    programs = server_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed")
    server = PostgresServer(programs)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A PostgreSQL server; what a test leaves stopped is started again, and connections left open are closed."""
    connections: list[Any] = []

    def keep(connection: Any, _record: Any) -> None:
        connections.append(connection)

    event.listen(Pool, "connect", keep)
    yield postgres_server
    event.remove(Pool, "connect", keep)
    for connection in connections:
        connection.close()
    postgres_server.start()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums of floats depend on the number of threads, and several test processes share the cores."""
    reset_threads()
    torch.set_num_threads(1)


# Runs a share of each property's examples: see `strategies.examples`.
settings.register_profile("fast")


MEMORY = Path("/dev/shm")
"""A file system in memory, which Linux has."""
MEMORY_NEEDED = 4 << 30
"""Bytes that must be free there; a run of all tests by two processes takes a fraction at any time."""


def keep_temporary_folders_in_memory() -> None:
    """Where there is room: what runs and studies write is flushed, file by file, and a disk takes milliseconds each."""
    if os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_NEEDED:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_configure() -> None:
    keep_temporary_folders_in_memory()
    # Progress is for people; tests of it ask for it. Commands that tests start inherit this.
    os.environ.setdefault("BUDGETNET_VERBOSITY", "quiet")
    # Before any test computes: torch's kernels ask only once what they may use.
    cpu.disable_broken_amx()
    # A shell runs background jobs with SIGINT ignored; commands that tests start would inherit that, but not a handler.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Whole commands take longest. Run first, none is left to one worker while the others have nothing to do.
    items.sort(key=lambda item: "runs" not in item.path.parts)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        # Where a GPU is the point of the run, tests that are all skipped must not look like tests that passed.
        if os.environ.get("BUDGETNET_GPU") == "required":
            pytest.fail("BUDGETNET_GPU is required, but torch finds no CUDA device")
        pytest.skip("needs a CUDA device")


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Runs the command line within this process."""
    from budgetnet.cli.main import main

    def run(*arguments: str) -> CommandResult:
        capsys.readouterr()
        code = main(list(arguments))
        return CommandResult(code, *capsys.readouterr())

    return run
