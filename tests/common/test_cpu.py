"""CPU settings: AMX is disabled if a real subprocess crashes, and freed memory causes no page faults."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from budgetnet.common import cpu

CPUINFO = ["model name : Some Processor", "flags : fpu avx512_bf16 amx_bf16 amx_tile"]
WORKS, CRASHES = "pass", f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})"


@pytest.fixture(autouse=True)
def machine_with_amx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pretend that the CPU reports AMX, with an empty cache."""
    monkeypatch.setenv("BUDGETNET_CACHE", str(tmp_path))
    # Set first, so that monkeypatch deletes the variable after the test.
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(cpu, "_cpuinfo", lambda: CPUINFO)


def max_isa() -> str | None:
    """Return oneDNN's instruction set limit as a new process would set it."""
    os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
    cpu.disable_broken_amx.__wrapped__()
    return os.environ.get("ONEDNN_MAX_CPU_ISA")


def test_amx_is_disabled_if_it_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_PROBE", CRASHES)
    assert max_isa() == "AVX512_CORE_FP16"


def test_amx_is_used_if_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_PROBE", WORKS)
    assert max_isa() is None


def test_amx_is_used_if_the_probe_fails_without_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_PROBE", "import a_module_that_is_not_there")
    assert max_isa() is None


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(CRASHES, WORKS, "AVX512_CORE_FP16"), (WORKS, CRASHES, None)]
)
def test_probe_result_is_cached_and_an_invalid_cache_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str, second: str, expected: str | None
) -> None:
    monkeypatch.setattr(cpu, "_PROBE", first)
    assert max_isa() == expected
    monkeypatch.setattr(cpu, "_PROBE", second)
    assert max_isa() == expected
    (file,) = (tmp_path / "tiles").iterdir()
    file.write_text("invalid")
    assert max_isa() != expected, "an invalid cache entry is replaced"


def test_files_in_the_working_folder_are_not_executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUDGETNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("torch", "json"):
        Path(f"{name}.py").write_text(f"open({name + '.ran'!r}, 'w')", encoding="utf-8")
    cpu._amx_status()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "json.py", "torch.py"]


def test_unwritable_cache_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tiles").write_text("a file where the folder should be")
    monkeypatch.setattr(cpu, "_PROBE", CRASHES)
    assert max_isa() == "AVX512_CORE_FP16"


def test_no_probe_without_amx_or_with_a_user_defined_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu, "_PROBE", CRASHES)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    cpu.disable_broken_amx.__wrapped__()
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    monkeypatch.setattr(cpu, "_cpuinfo", lambda: ["flags : fpu avx512_bf16"])
    assert max_isa() is None
    assert list(tmp_path.iterdir()) == []


COUNT_PAGE_FAULTS = """
import resource, sys
from budgetnet.common import cpu
import torch
kept = cpu.keep_freed_memory()
def step():
    # 20 blocks of 8 MB are 40,960 pages of 4 KiB, too large for the allocator's free lists.
    blocks = [torch.zeros(2_000_000) for _ in range(20)]
step(); step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_page_faults(**variables: str) -> tuple[bool, int]:
    """Return whether a new process keeps freed memory, and the page faults of a step that allocates 160 MB again."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {"THP_MEM_ALLOC_ENABLE": "0", **variables}
    environment["PYTHONPATH"] = str(Path(cpu.__file__).parents[2])
    command = [sys.executable, "-c", COUNT_PAGE_FAULTS]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    kept, count = output.split()
    return kept == "True", int(count)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is configured")
def test_keeping_freed_memory_avoids_page_faults() -> None:
    # By default glibc also keeps memory below a small allocation that happens to lie above it, so processes differ.
    kept = [count_page_faults() for _ in range(3)]
    default = [count_page_faults(BUDGETNET_CPU_SETTINGS="off") for _ in range(3)]
    assert {enabled for enabled, _ in kept} == {True}
    assert {enabled for enabled, _ in default} == {False}
    # Between 5 and 50 times fewer, by processor and kernel.
    assert max(faults for _, faults in kept) < max(faults for _, faults in default) / 3


@pytest.mark.parametrize(("name", "value"), [("MALLOC_MMAP_THRESHOLD_", "65536"), ("GLIBC_TUNABLES", "")])
def test_allocator_settings_of_the_user_are_not_changed(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert not cpu.keep_freed_memory.__wrapped__()


def test_processors_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu.name() == "Some Processor"
    first = ["processor\t: 0", "cpu family\t: 25", "model\t\t: 17", "model name\t: Some Processor", "stepping\t: 1"]
    monkeypatch.setattr(cpu, "_cpuinfo", lambda: [*first, "", *(line.replace("17", "2") for line in first)])
    assert cpu.name() == "Some Processor (family 25, model 17)"
    monkeypatch.setattr(cpu, "_cpuinfo", list)
    assert cpu.name() == (platform.processor() or platform.machine())
