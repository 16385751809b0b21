"""Peak memory of the maps of ONNX models as ONNX Runtime itself plans it, the reference of what is predicted.

The runtime reports it only in its log: from the second run on, it asks for the memory of all maps at once. A process of
its own runs the models, gives all memory back after each run, and writes the log to standard error.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from budgetnet.common.errors import BudgetnetError
from budgetnet.exporting.classifier import Classifier
from budgetnet.exporting.programs import exported_program, library_messages_disabled, onnx_program
from budgetnet.model.spec import ModelSpec

LAYOUT = "NchwcTransformer"
"""The runtime's optimisation that changes to the blocked layout."""

_RUN, _LAST_RUN, _END = "measured run", 2, "measured end"
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
    command = [sys.executable, "-m", __name__, str(images), ",".join(disabled), *map(str, models)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - of this package
    if done.returncode:
        raise BudgetnetError(f"ONNX Runtime failed: {done.stderr.strip().splitlines()[-1]}")
    peaks = []
    for model, log in zip(models, done.stderr.split(_END), strict=False):
        request = _REQUEST.search(log.partition(f"{_RUN} {_LAST_RUN}")[2])
        if request is None:
            raise BudgetnetError(f"{model}: ONNX Runtime reported no memory")
        peaks.append(int(request[1]))
    return peaks


def _run(images: int, disabled: Sequence[str], models: Sequence[str]) -> None:
    """Run models, and write the runtime's log of each to standard error."""
    import numpy as np
    import onnxruntime

    onnxruntime.set_default_logger_severity(0)
    onnxruntime.set_default_logger_verbosity(9)
    # Memory is requested just as it is needed, and given back after each run.
    arena = {"initial_chunk_size_bytes": 256, "arena_extend_strategy": 1, "max_dead_bytes_per_chunk": 1}
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(arena))
    for model in models:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        # Packed weights would leave gaps, which a request may be met from unseen.
        options.add_session_config_entry("session.disable_prepacking", "1")
        session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
        )
        run_options = onnxruntime.RunOptions()
        run_options.log_severity_level, run_options.log_verbosity_level = 0, 9
        run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        pixels = np.zeros((images, *session.get_inputs()[0].shape[1:]), np.float32)
        for number in range(_LAST_RUN + 1):
            _log(f"{_RUN} {number}")
            session.run(None, {"images": pixels}, run_options)
        _log(_END)


def _log(text: str) -> None:
    """Write to the runtime's log, which is standard error without a buffer."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    _run(int(sys.argv[1]), [name for name in sys.argv[2].split(",") if name], sys.argv[3:])
