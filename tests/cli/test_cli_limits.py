"""Commands with too little memory and too few threads: one line that says so, whatever was being done."""

from __future__ import annotations

import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import child_environment

from budgetnet.common.errors import DataError, is_lack_of_resources, is_out_of_memory
from budgetnet.data.arrays import load_arrays


def limited(limit: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(limit, (value, value))


@pytest.mark.parametrize("megabytes", [1_000, 2_500])
def test_too_little_memory_is_one_line(tmp_path: Path, megabytes: int) -> None:
    command = [sys.executable, "-m", "budgetnet", "train", "reference", "--data", "digits", "--epochs", "1"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**child_environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=limited(resource.RLIMIT_AS, megabytes << 20),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: out of memory: ")
    assert done.stderr.endswith(" during `budgetnet train`\n")


def test_an_array_that_is_larger_than_memory_is_named(tmp_path: Path) -> None:
    images, labels = np.zeros((2, 8, 8), np.uint8), np.arange(2)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    huge = b"(9000000000000000, 8, 8), }"
    with zipfile.ZipFile(tmp_path / "a.npz") as sound, zipfile.ZipFile(tmp_path / "b.npz", "w") as claiming:
        for name in sound.namelist():
            claiming.writestr(name, sound.read(name).replace(b"(2, 8, 8), }".ljust(len(huge)), huge))
    with pytest.raises(DataError, match="train_images does not fit into memory, or is damaged"):
        load_arrays(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("error", "lacks", "memory"),
    [
        (MemoryError(), True, True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True, True),
        (OSError(12, "Cannot allocate memory"), True, True),
        (RuntimeError("can't start new thread"), True, False),
        (OSError(5, "Input/output error"), True, False),
        (OSError("Failed to interpret file"), False, False),
        (ValueError("bad magic number"), False, False),
    ],
)
def test_lack_of_resources_is_no_fault_of_a_file(error: Exception, lacks: bool, memory: bool) -> None:
    assert (is_lack_of_resources(error), is_out_of_memory(error)) == (lacks, memory)
