"""Choice of an engine, by name and number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from budgetnet.common.config import EngineName
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.inline import InlineEngine
from budgetnet.engines.jobs import Engine
from budgetnet.engines.processes import ProcessEngine


class EngineChoice(NamedTuple):
    """An engine and its number of workers."""

    name: EngineName = "local"
    workers: int = 1

    @classmethod
    def of(cls, name: EngineName, *, workers: int | None, per_gpu: int, device: torch.device) -> EngineChoice:
        """Return the choice of a config; by default one worker on a CPU and ``per_gpu`` on each GPU."""
        on_gpus = torch.cuda.device_count() * per_gpu if device.type == "cuda" else 1
        return cls(name, workers or on_gpus)

    @property
    def in_this_process(self) -> bool:
        """Whether this process trains."""
        return self.name == "local" and self.workers == 1

    def place(self, device: torch.device) -> torch.device:
        """Return where this process needs the images: workers copy them to their devices themselves."""
        return device if self.in_this_process else torch.device("cpu")


LOCAL = EngineChoice()
"""This process."""


def make_engine(choice: EngineChoice, data: TrainingData, *, out: Path, device: torch.device) -> Engine:
    """Return an engine.

    Args:
        choice: which engine, and its number of workers.
        data: training and validation images, at the place that the choice names.
        out: folder of run folders.
        device: device to train on.
    """
    if choice.in_this_process:
        return InlineEngine(data, out=out)
    return ProcessEngine(data, out=out, device=device.type, workers=choice.workers)
