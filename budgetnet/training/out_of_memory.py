"""Out-of-memory handling: retries training with half batches."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from budgetnet.common.errors import BudgetnetError, is_out_of_memory
from budgetnet.runs.records import RunRecord
from budgetnet.training.step import Execution


def retry_out_of_memory(
    attempt: Callable[[Execution], RunRecord], *, begin_with: int = 1
) -> tuple[RunRecord | None, int]:
    """Train with whole batches and, if memory runs out, once more with gradients accumulated over half batches.

    Args:
        attempt: trains with the given execution; resumes from the last checkpoint when called again.
        begin_with: number of parts of each batch to begin with: 1, or 2 for half batches from the start.

    Returns:
        The record, or None if half batches do not fit either, and the number of parts of each batch.
    """
    for parts in range(begin_with, 3):
        try:
            return attempt(Execution(parts=parts)), parts
        except (BudgetnetError, RuntimeError, MemoryError) as error:
            if not (isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error)):
                raise
        # Reference cycles in the training objects keep device memory allocated until they are collected.
        gc.collect()
        torch.cuda.empty_cache()
    return None, parts
