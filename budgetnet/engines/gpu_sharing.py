"""Number of worker processes that share a GPU, from its memory and the largest training that is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import torch

from budgetnet.common.byte_sizes import short_bytes
from budgetnet.common.config import EngineOptions
from budgetnet.common.cpu import available_cores
from budgetnet.data import DataSet
from budgetnet.runs.training_memory import TrainingMemory

CONTEXT = 600 * 2**20
"""Bytes assumed for the CUDA context of a process, with the kernels of torch, cuDNN and cuBLAS."""
USED_SHARE = 0.9
"""Share of the free memory that is divided; the rest is for workspaces of cuDNN and the allocator's fragments."""
MOST = 8
"""Most processes that share a GPU: beyond a few they wait for each other, and a search learns later."""

Options = TypeVar("Options", bound=EngineOptions)


class Sharing(NamedTuple):
    """How a GPU is shared."""

    workers: int
    """Number of processes."""
    free: int
    """Bytes of its memory that were free."""
    needed: int
    """Bytes that the largest training needs, with its process."""

    def __str__(self) -> str:
        return (
            f"per_gpu: {self.workers}; {short_bytes(self.free)} of the GPU are free, and the process of the largest "
            f"training needs about {short_bytes(self.needed)}"
        )


def process_memory(training: TrainingMemory, *, images: int) -> int:
    """Return the bytes of a GPU that a worker process needs for a training.

    What autograd keeps is counted twice: full batches are captured as CUDA graphs, which have memory of their own, and
    the smaller last batch of an epoch and validation need other memory.

    Args:
        training: memory of the training step.
        images: bytes of all images, of which each process has a copy.
    """
    return CONTEXT + images + training.total + training.kept


def share(free: int, needed: int, *, cores: int) -> Sharing:
    """Return how many processes share a GPU: as many as fit, at least one.

    Args:
        free: bytes of the GPU that are free.
        needed: bytes that a process needs.
        cores: CPU cores for the processes of the GPU, of which each needs one.
    """
    return Sharing(max(1, min(int(USED_SHARE * free) // needed, cores, MOST)), free, needed)


def free_gpu_memory() -> int:
    """Return the bytes that are free on the GPU of this machine with the least free memory."""
    return min(torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count()))


def with_workers_per_gpu(
    options: Options,
    *,
    device: torch.device,
    dataset: DataSet,
    trainings: Callable[[], Iterable[TrainingMemory]],
    say: Callable[[str], object],
) -> Options:
    """Return options with the number of workers per GPU where it is ``auto`` and GPUs are used.

    Args:
        options: options of the command.
        device: device to train on.
        dataset: images, of which each worker has a copy on its GPU.
        trainings: returns the memory of the trainings, or of a sample of them.
        say: called with a line on the number and its reasons.
    """
    # On this machine, a number of workers that was given is the number of all.
    is_open = options.workers is None or options.engine == "ray"
    if options.per_gpu != "auto" or device.type != "cuda" or not is_open:
        return options
    needed = max(process_memory(each, images=dataset.train_images.nbytes) for each in trainings())
    sharing = share(free_gpu_memory(), needed, cores=available_cores() // torch.cuda.device_count())
    say(str(sharing))
    return options.replace(per_gpu=sharing.workers)
