"""Choice of an engine, by name and number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from budgetnet.common.config import EngineName, EngineOptions
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.inline import InlineEngine
from budgetnet.engines.jobs import Engine
from budgetnet.engines.processes import ProcessEngine


class EngineChoice(NamedTuple):
    """An engine and its number of workers."""

    name: EngineName = "local"
    workers: int | None = 1
    """Number of workers; None: as many as a cluster has room for."""
    per_gpu: int = 1
    """Number of workers that share a GPU."""
    store: str | None = None
    """URL at which a cluster's workers keep runs; None: in the folder of run folders."""

    @classmethod
    def of(cls, config: EngineOptions, *, device: torch.device) -> EngineChoice:
        """Return the choice of a config; on this machine by default one worker on a CPU and ``per_gpu`` on each GPU."""
        # Where auto was not replaced, no GPU is shared, or the workers are given.
        workers, per_gpu = config.workers, 1 if config.per_gpu == "auto" else config.per_gpu
        if workers is None and config.engine == "local":
            workers = torch.cuda.device_count() * per_gpu if device.type == "cuda" else 1
        return cls(config.engine, workers, per_gpu, config.store)

    @property
    def in_this_process(self) -> bool:
        """Whether this process trains."""
        return self.name == "local" and self.workers == 1

    @property
    def workers_here(self) -> int:
        """Number of workers that share this machine's cores."""
        return self.workers or 1 if self.name == "local" else 1

    def fetch(self, run: str, *, out: Path) -> None:
        """Copy a run folder from the store of a cluster's workers, if there is one, to the folder of run folders.

        Raises:
            StoreError: the store cannot be read.
        """
        if self.store is not None:
            from budgetnet.engines.run_store import RunStore

            RunStore(self.store).fetch(run, out)

    def place(self, device: torch.device) -> torch.device:
        """Return where this process needs the images: workers copy them to their devices themselves."""
        return device if self.in_this_process else torch.device("cpu")


LOCAL = EngineChoice()
"""This process."""


def require_engine(options: EngineOptions) -> None:
    """Require what an engine needs, so that nothing is loaded in vain.

    Raises:
        InputError: a package is missing, no cluster answers, or no store can be opened at the URL.
    """
    if options.engine == "ray":
        from budgetnet.engines.ray_address import require_ray
        from budgetnet.engines.run_store import RunStore

        require_ray()
        if options.store is not None:
            RunStore(options.store)


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
    if choice.name == "local":
        return ProcessEngine(data, out=out, device=device.type, workers=choice.workers or 1)
    from budgetnet.engines.ray_engine import RayEngine

    return RayEngine(
        data, out=out, device=device.type, workers=choice.workers, per_gpu=choice.per_gpu, store=choice.store
    )
