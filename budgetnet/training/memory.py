"""Whether a training fits into the memory of its device."""

from __future__ import annotations

import logging
from typing import cast

import torch

from budgetnet.common.byte_sizes import short_bytes
from budgetnet.common.memory import available_memory, return_freed_memory
from budgetnet.model.kept_maps import Precision
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.training_memory import TrainingMemory, training_memory
from budgetnet.training.devices import choose_precision

_log = logging.getLogger(__name__)


def memory_of(device: torch.device) -> int | None:
    """Return the bytes of a GPU's memory, or of this machine's that are available; None where unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return available_memory() if device.type == "cpu" else None


def memory_on(device: torch.device, spec: ModelSpec, recipe: Recipe, *, parts: int = 1) -> TrainingMemory:
    """Return the memory that a training step needs on a device; see `training_memory`.

    Raises:
        InputError: the device does not support the recipe's precision.
    """
    precision = cast(Precision, choose_precision(recipe.precision, device))
    return training_memory(spec, recipe, precision=precision, on_gpu=device.type != "cpu", parts=parts)


def parts_to_begin_with(spec: ModelSpec, recipe: Recipe, device: torch.device) -> int:
    """Return the number of parts of each batch to begin a training with: 2 if whole batches are too large.

    Args:
        spec: the network, with the image shape and number of classes of the data.
        recipe: training recipe.
        device: device to train on.
    """
    available, needed = memory_of(device), memory_on(device, spec, recipe)
    if available is not None and available < needed.total and device.type == "cpu":
        # Of a training before, which this one can use as well.
        return_freed_memory()
        available = memory_of(device)
    if available is None or needed.total <= available:
        return 1
    _log.warning(
        "%s: a training step on %d images needs about %s, and %s has %s: each batch is split from the start, into "
        "halves whose gradients are added",
        spec.label,
        recipe.batch_size,
        short_bytes(needed.total),
        "this machine" if device.type == "cpu" else "the GPU",
        short_bytes(available),
    )
    return 2
