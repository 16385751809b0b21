"""Networks as ONNX models."""

from __future__ import annotations

from torch import Tensor

from budgetnet.exporting import verification
from budgetnet.exporting.job import Job
from budgetnet.exporting.metadata import PIXELS, as_json_strings
from budgetnet.exporting.programs import onnx_program


def write_onnx(job: Job) -> list[Tensor]:
    """Write a network as an ONNX model, and return the logits of the sample, computed by ONNX Runtime from the file.

    Raises:
        BudgetnetError: torch returned no model.
    """
    from onnxscript import ir

    written = onnx_program(job.program())
    graph = written.model.graph
    for part in (graph, *graph.inputs, *graph, *(output for node in graph for output in node.outputs)):
        # Notes on the origin of each node, several times as large as a small network.
        part.metadata_props.clear()
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        # Torch names the only free dimension after its own symbol.
        if value.shape is not None:
            value.shape = ir.Shape(["batch" if not isinstance(size, int) else size for size in value.shape])
    identity = job.record.identity
    written.model.doc_string = (
        f"{identity.spec.label}, trained on {identity.data.name.partition(':')[0]}; input: {PIXELS}"
    )
    written.model.metadata_props.update(as_json_strings(job.metadata(PIXELS)))
    written.save(job.path)
    return verification.predict_with_onnx_runtime(job.path, job.sample.batches)
