"""Memory that is available to a process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from budgetnet.common.memory import available_memory

MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000 kB\nMemAvailable:    4000 kB\n"


@pytest.fixture
def container(tmp_path: Path) -> Path:
    folder = tmp_path / "cgroup"
    folder.mkdir()
    return folder


def available(container: Path, **files: str) -> int | None:
    for name, text in files.items():
        (container / f"memory.{name}").write_text(text)
    meminfo = container.parent / "meminfo"
    meminfo.write_text(MEMINFO)
    return available_memory(meminfo=meminfo, container=container)


def test_the_machines_available_memory_counts(container: Path) -> None:
    assert available(container) == 4_096_000
    assert available(container, max="max\n", current="5\n", stat="") == 4_096_000


def test_the_limit_of_a_container_counts_without_cached_files(container: Path) -> None:
    used = {"current": "2000000\n", "stat": "anon 1500000\ninactive_file 500000\n"}
    assert available(container, max="3000000\n", **used) == 1_500_000
    assert available(container, max="1000000\n", **used) == 0
    assert available(container, max="90000000\n", **used) == 4_096_000


def test_nothing_is_known_without_the_kernels_files(tmp_path: Path) -> None:
    assert available_memory(meminfo=tmp_path / "none", container=tmp_path) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the kernel's files")
def test_this_machine_has_some() -> None:
    found = available_memory()
    assert found is not None
    assert 2**20 < found < 2**50
