"""Run of an ONNX model in ONNX Runtime that writes the runtime's log to standard error, for `planned_memory`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

LAST_RUN = "last measured run"
"""Line before the log of the run that counts."""
_RUNS = 3


def main(images: int, disabled: Sequence[str], model: str) -> None:
    """Run the model several times, and give all memory back after each run.

    Args:
        images: images in a batch.
        disabled: names of optimisations that the runtime is not to use.
        model: file of the ONNX model.
    """
    import numpy as np
    import onnxruntime

    onnxruntime.set_default_logger_severity(0)
    onnxruntime.set_default_logger_verbosity(9)
    # Memory is requested just as it is needed, and given back after each run.
    arena = {"initial_chunk_size_bytes": 256, "arena_extend_strategy": 1, "max_dead_bytes_per_chunk": 1}
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(arena))
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
    for number in range(_RUNS):
        if number == _RUNS - 1:
            # The runtime's log is standard error without a buffer.
            sys.stderr.write(f"{LAST_RUN}\n")
            sys.stderr.flush()
        session.run(None, {"images": pixels}, run_options)


if __name__ == "__main__":
    main(int(sys.argv[1]), [name for name in sys.argv[2].split(",") if name], sys.argv[3])
