"""Fixtures that several test files share."""

from __future__ import annotations

import pytest
import torch
from support import Tell, Told

from budgetnet.data import DataSet, load_dataset


@pytest.fixture(scope="session")
def digits() -> DataSet:
    return load_dataset("digits")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums of floats depend on the number of threads, and several test processes share the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Runs the command line within this process."""
    from budgetnet.cli.main import main

    def run(*arguments: str) -> Told:
        capsys.readouterr()
        code = main(list(arguments))
        return Told(code, *capsys.readouterr())

    return run
