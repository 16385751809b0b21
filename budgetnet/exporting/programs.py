"""Programs of torch.export and ONNX models of networks with built-in normalisation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from budgetnet.common.errors import BudgetnetError
from budgetnet.exporting.classifier import Classifier


def exported_program(network: Classifier, input_shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """Export a network with torch.export, for any batch size.

    Args:
        network: the network, in evaluation mode.
        input_shape: image as (channels, height, width).
    """
    # Batch size 2, because torch.export specialises on size 1.
    images, batch = torch.zeros(2, *input_shape), torch.export.Dim("batch")
    return torch.export.export(network, (images,), dynamic_shapes={"images": {0: batch}}, strict=False)


def onnx_program(program: torch.export.ExportedProgram) -> torch.onnx.ONNXProgram:
    """Convert a program of `exported_program` to an ONNX model.

    Raises:
        BudgetnetError: torch returns none.
    """
    written = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    if written is None:
        raise BudgetnetError("torch returned no ONNX model")
    return written


@contextmanager
def library_messages_disabled() -> Iterator[None]:
    """Disable warnings and log messages of the libraries that write and run networks."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)
