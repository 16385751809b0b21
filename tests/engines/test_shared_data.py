"""Folders that last as long as a process, beside those of other processes and users."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from budgetnet.engines.shared_data import own_folder

UNPRIVILEGED = 65_534
"""Number of a user that has no files."""


@contextmanager
def without_privileges() -> Iterator[None]:
    """Be a user from whom folders can be closed, which the administrator is not."""
    if os.geteuid():
        yield
        return
    os.seteuid(UNPRIVILEGED)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def parent() -> Iterator[Path]:
    """A folder that every user can write to."""
    folder = Path(tempfile.mkdtemp(prefix="budgetnet-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def left_in(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / ".lock").touch()
    return folder


def test_only_what_killed_processes_left_is_removed(parent: Path) -> None:
    left, used = left_in(parent, "work-left"), left_in(parent, "work-used")
    with FileLock(used / ".lock"), own_folder(parent, prefix="work-") as own:
        assert set(parent.iterdir()) == {own, used}
    assert not left.exists()
    assert list(parent.iterdir()) == [used]


@pytest.mark.skipif(os.name != "posix", reason="needs permissions of POSIX")
def test_a_folder_of_another_user_is_left_alone(parent: Path) -> None:
    closed = left_in(parent, "work-closed")
    closed.chmod(0)
    with without_privileges(), own_folder(parent, prefix="work-") as own:
        assert own.is_dir()
    closed.chmod(0o700)
    assert list(parent.iterdir()) == [closed]
