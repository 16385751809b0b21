"""What the processor says it can do, tried out in processes that really end as they would on a machine without it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from budgetnet.common import cpu

LISTED = ["model name : Some Processor", "flags : fpu avx512_bf16 amx_bf16 amx_tile"]
FINE, ILLEGAL = "pass", f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with tiles, on which nothing was tried out yet."""
    monkeypatch.setenv("BUDGETNET_CACHE", str(tmp_path))
    # Set first, so that it is taken away again behind the test.
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(cpu, "_description", lambda: LISTED)


def limit() -> str | None:
    """What torch's kernels may use behind a new start."""
    os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
    cpu.avoid_broken_tiles.__wrapped__()
    return os.environ.get("ONEDNN_MAX_CPU_ISA")


def test_tiles_that_end_a_process_are_avoided_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_PROBE", ILLEGAL)
    assert limit() == "AVX512_CORE_FP16"


def test_tiles_that_work_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_PROBE", FINE)
    assert limit() is None


def test_a_probe_that_fails_by_itself_says_nothing_of_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_PROBE", "import a_module_that_is_not_there")
    assert limit() is None


@pytest.mark.parametrize(("first", "then", "found"), [(ILLEGAL, FINE, "AVX512_CORE_FP16"), (FINE, ILLEGAL, None)])
def test_what_was_found_once_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str, then: str, found: str | None
) -> None:
    monkeypatch.setattr(cpu, "_PROBE", first)
    assert limit() == found
    monkeypatch.setattr(cpu, "_PROBE", then)
    assert limit() == found
    (file,) = (tmp_path / "tiles").iterdir()
    file.write_text("neither of the two")
    assert limit() != found, "what is no answer is found anew"


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tiles").write_text("a file where the folder should be")
    monkeypatch.setattr(cpu, "_PROBE", ILLEGAL)
    assert limit() == "AVX512_CORE_FP16"


def test_nothing_is_tried_out_without_tiles_or_where_a_limit_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cpu, "_PROBE", ILLEGAL)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    cpu.avoid_broken_tiles.__wrapped__()
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    monkeypatch.setattr(cpu, "_description", lambda: ["flags : fpu avx512_bf16"])
    assert limit() is None
    assert list(tmp_path.iterdir()) == []


FAULTS = """
import resource, sys
from budgetnet.common import cpu
import torch
kept = cpu.keep_freed_memory()
def step():
    # 20 blocks of 8 MB are 40,960 pages of 4 KiB, in place of the free lists' small ones.
    blocks = [torch.zeros(2_000_000) for _ in range(20)]
step(); step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**variables: str) -> tuple[bool, int]:
    """Whether a fresh process keeps freed memory, and the page faults of a step in it that uses 160 MB again."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {"THP_MEM_ALLOC_ENABLE": "0", **variables}
    environment["PYTHONPATH"] = str(Path(cpu.__file__).parents[2])
    command = [sys.executable, "-c", FAULTS]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    kept, count = ended.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set")
def test_memory_freed_by_a_step_is_used_by_the_next_without_page_faults() -> None:
    kept, few = faults()
    left, many = faults(BUDGETNET_CPU_SETTINGS="off")
    assert (kept, left) == (True, False)
    assert few < many / 10


@pytest.mark.parametrize(("name", "value"), [("MALLOC_MMAP_THRESHOLD_", "65536"), ("GLIBC_TUNABLES", "")])
def test_an_allocator_set_by_the_user_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert not cpu.keep_freed_memory.__wrapped__()
