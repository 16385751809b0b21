"""Peak memory of the maps of ONNX models as ONNX Runtime itself plans it, the reference of what is predicted.

The runtime reports it only in its log: from the second run on, it asks for the memory of all maps at once. Each model
runs in a process of its own (`onnx_memory_log`), because a request may be met unseen from what another model has left.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from budgetnet.bench import onnx_memory_log
from budgetnet.common.errors import BudgetnetError
from budgetnet.exporting.classifier import Classifier
from budgetnet.exporting.programs import exported_program, library_messages_disabled, onnx_program
from budgetnet.model.spec import ModelSpec

LAYOUT = "NchwcTransformer"
"""The runtime's optimisation that changes to the blocked layout."""

_REQUEST = re.compile(r"Extending BFCArena.* num_bytes: (\d+)")


def write_model(spec: ModelSpec, path: Path) -> None:
    """Write a network with random weights as the ONNX model that `export` writes."""
    channels = spec.input_shape[0]
    network = Classifier(spec.build(), mean=[0.5] * channels, std=[0.25] * channels).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # As after training: biases of zero would be left out, and equal statistics stored once.
            for values in (*module.parameters(), *(each for each in module.buffers() if each.ndim)):
                torch.nn.init.uniform_(values, 0.5, 1.5)
    with library_messages_disabled():
        onnx_program(exported_program(network, spec.input_shape)).save(path)


def measure(models: Sequence[Path], *, images: int = 1, disabled: Iterable[str] = ()) -> list[int]:
    """Measure the peak memory of models' maps, in bytes.

    Args:
        models: ONNX models.
        images: images in a batch.
        disabled: names of optimisations that the runtime is not to use.

    Raises:
        BudgetnetError: the runtime fails, or reports nothing about a model.
    """
    peaks = []
    for model in models:
        command = [sys.executable, "-P", "-m", onnx_memory_log.__name__, str(images), ",".join(disabled), str(model)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - of this package
        if done.returncode:
            raise BudgetnetError(f"ONNX Runtime failed: {done.stderr.strip().splitlines()[-1]}")
        request = _REQUEST.search(done.stderr.partition(onnx_memory_log.LAST_RUN)[2])
        if request is None:
            raise BudgetnetError(f"{model}: ONNX Runtime reported no memory")
        peaks.append(int(request[1]))
    return peaks
