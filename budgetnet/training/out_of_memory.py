"""Training on a device whose memory may not suffice: whole batches, then half ones, then not at all."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from budgetnet.common.errors import BudgetnetError, is_out_of_memory
from budgetnet.runs.records import RunRecord
from budgetnet.training.step import Execution


def with_memory(attempt: Callable[[Execution], RunRecord]) -> tuple[RunRecord | None, int]:
    """Trains with whole batches, and once more with halves whose gradients add up where memory did not suffice.

    Args:
        attempt: trains with the given execution, and goes on from the last checkpoint when called again.

    Returns:
        The record, none where even halves were too large, and the number of parts that a batch was cut into.
    """
    for parts in (1, 2):
        try:
            return attempt(Execution(parts=parts)), parts
        except (BudgetnetError, RuntimeError, MemoryError) as error:
            if not (isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error)):
                raise
        # What trained the candidate holds itself in a circle, and the device's memory with it.
        gc.collect()
        torch.cuda.empty_cache()
    return None, parts
