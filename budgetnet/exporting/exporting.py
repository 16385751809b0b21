"""`export`: writes the network of a run to a file and verifies it before it replaces anything."""

from __future__ import annotations

import errno
import io
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from budgetnet.common.errors import BudgetnetError, InputError
from budgetnet.common.extras import require_extra
from budgetnet.common.files import replace_atomically
from budgetnet.data import DataSet, load_dataset
from budgetnet.evaluation.inference import trained_network
from budgetnet.evaluation.run_data import class_names, read_runs
from budgetnet.exporting import verification
from budgetnet.exporting.classifier import Classifier
from budgetnet.exporting.formats import FORMATS, SUFFIXES, Format
from budgetnet.exporting.metadata import NORMALISED, PIXELS, as_json_strings, metadata_of
from budgetnet.exporting.source import python_source
from budgetnet.runs.records import RunRecord
from budgetnet.study.run_names import run_path
from budgetnet.training.checkpoint import load_weights, write_safetensors
from budgetnet.training.devices import choose_device

METADATA_FILE = "budgetnet.json"
"""Name of the metadata in the archive of a torch.export program."""


class Exported(NamedTuple):
    """Files written by `export`, and the result of their verification."""

    paths: tuple[Path, ...]
    """The file; for ``python`` also the file of its weights."""
    size: int
    """Bytes, all files together."""
    images: int
    """Number of images on which the two networks were compared."""
    compared_on: str
    """Description of these images."""
    difference: float
    """Largest absolute difference between two logits; all predictions were equal."""


def export(
    run: str | Path,
    *,
    format: Format,  # noqa: A002 - the usual name
    to: str | Path | None = None,
    data: str | None = None,
    load: Callable[[str], DataSet] = load_dataset,
) -> Exported:
    """Write a trained network to a file that can be used without budgetnet.

    The file is loaded back, and its logits are compared with those of the run's network, on the CPU in float32. If they
    differ, nothing is written. See `budgetnet.exporting` for inputs and outputs.

    Args:
        run: the run folder, or the name of a run, such as ``best`` or ``#3``.
        format: ``safetensors``: weights and metadata. ``onnx``: an ONNX model. ``torch-export``: a program for
            `torch.export.load`. ``python``: a readable PyTorch file, and its weights in a second file.
        to: the file or its folder, which need not exist; an existing file is replaced. Default: named after the
            run, in the current folder.
        data: name of the run's data set if it has moved, such as ``folder:PATH``. Default: as recorded.
        load: loads a data set by name.

    Raises:
        InputError: unknown format, a file name with another suffix, a missing package for ONNX, or `data` is not the
            data set that the run was trained on.
        RecordError: the folder holds no run, or one that is unfinished, has no result or no weights.
        BudgetnetError: the exported network differs from the run's network.
        OSError: the file cannot be written.
    """
    if format not in FORMATS:
        raise InputError("format", format, f"must be one of {', '.join(FORMATS)}")
    if format == "onnx":
        require_extra("export", "onnx", "onnxruntime", "onnxscript", field="format", value="onnx")
    (record,) = read_runs([run_path(run)])
    path = _output_path(record, format, None if to is None else Path(to))
    load_once = cache(load)
    # Chosen through `choose_device`, which also checks this processor's arithmetic.
    network = trained_network(record, choose_device("cpu")).eval()
    sample = verification.sample_images(record, data=data, load=load_once)
    names = class_names(record, load=load_once)
    with _temporary_folder_beside(path) as folder, _torch_messages_disabled():
        job = _Job(record, network, sample, names, folder / path.name)
        try:
            paths, logits = _WRITERS[format](job)
            expected = verification.predict(job.with_normalisation(network), sample.batches)
            difference = verification.largest_difference(expected, logits)
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from None
        except BudgetnetError as error:
            raise BudgetnetError(f"{path}: not written, because {error}") from None
        size = sum(each.stat().st_size for each in paths)
        # The main file comes last, so that its weights exist when it does.
        for each in reversed(paths):
            replace_atomically(each, path.with_name(each.name))
    final_paths = tuple(path.with_name(each.name) for each in paths)
    return Exported(final_paths, size, sample.images, sample.description, difference)


class _Job(NamedTuple):
    """Input of a writer."""

    record: RunRecord
    network: nn.Module
    sample: verification.Sample
    class_names: Sequence[str]
    path: Path
    """Temporary path of the file."""

    def with_normalisation(self, network: nn.Module) -> Classifier:
        """Return a network with the run's normalisation built in."""
        data = self.record.identity.data
        return Classifier(network, mean=data.mean, std=data.std).eval()

    def metadata(self, input_format: str) -> dict[str, Any]:
        """Return the metadata of the file."""
        return metadata_of(self.record, class_names=self.class_names, input_format=input_format)


_Written = tuple[list[Path], list[Tensor]]
"""Files, the main one first, and the logits of the sample, computed from these files."""


def _write_safetensors(job: _Job) -> _Written:
    write_safetensors(job.path, job.network.state_dict(), metadata=as_json_strings(job.metadata(NORMALISED)))
    loaded = job.record.identity.spec.build()
    load_weights(loaded, job.path)
    return [job.path], verification.predict(job.with_normalisation(loaded), job.sample.batches)


def _write_torch_export(job: _Job) -> _Written:
    extra_files = {METADATA_FILE: json.dumps(job.metadata(PIXELS), indent=2)}
    # Through memory, because torch raises errors of its own, not OSError, when the disk is full.
    stream = io.BytesIO()
    torch.export.save(_exported_program(job), stream, extra_files=extra_files)
    job.path.write_bytes(stream.getbuffer())
    return [job.path], verification.predict_with_torch_export(job.path, job.sample.batches)


def _write_onnx(job: _Job) -> _Written:
    from onnxscript import ir

    written = torch.onnx.export(
        _exported_program(job),
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    if written is None:
        raise BudgetnetError("torch returned no ONNX model")
    graph = written.model.graph
    for part in (graph, *graph.inputs, *graph, *(output for node in graph for output in node.outputs)):
        # Notes on the origin of each node, several times as large as a small network.
        part.metadata_props.clear()
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        # Torch names the only free dimension after its own symbol.
        if value.shape is not None:
            value.shape = ir.Shape(["batch" if not isinstance(size, int) else size for size in value.shape])
    data = job.record.identity.data
    written.model.doc_string = (
        f"{job.record.identity.spec.label}, trained on {data.name.partition(':')[0]}; input: {PIXELS}"
    )
    written.model.metadata_props.update(as_json_strings(job.metadata(PIXELS)))
    written.save(job.path)
    return [job.path], verification.predict_with_onnx_runtime(job.path, job.sample.batches)


def _write_python(job: _Job) -> _Written:
    weights = job.path.with_suffix(".weights.safetensors")
    write_safetensors(weights, job.network.state_dict(), metadata=as_json_strings(job.metadata(NORMALISED)))
    job.path.write_text(python_source(job.record, class_names=job.class_names), encoding="utf-8")
    return [job.path, weights], verification.predict_in_isolation(job.path, weights, job.sample.batches)


_WRITERS: dict[Format, Callable[[_Job], _Written]] = {
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "torch-export": _write_torch_export,
    "python": _write_python,
}


def _exported_program(job: _Job) -> torch.export.ExportedProgram:
    """Export the network with torch.export, for any batch size."""
    # Batch size 2, because torch.export specialises on size 1.
    images = torch.zeros(2, *job.record.identity.spec.input_shape)
    network, batch = job.with_normalisation(job.network), torch.export.Dim("batch")
    program = torch.export.export(network, (images,), dynamic_shapes={"images": {0: batch}}, strict=False)
    for node in program.graph.nodes:
        # Stack traces hold paths of this machine.
        node.meta.pop("stack_trace", None)
    return program


def _output_path(record: RunRecord, format: Format, to: Path | None) -> Path:  # noqa: A002 - as above
    name, suffix = record.folder.resolve().name, SUFFIXES[format]
    if format == "python":
        # A name that can be imported.
        name = re.sub(r"\W", "_", name)
        name = f"_{name}" if name[:1].isdigit() else name
    # A path without a suffix is a folder, which need not exist yet.
    if to is None or to.is_dir() or not (to.suffix or to.exists()):
        return (to or Path()) / f"{name}{suffix}"
    if to.suffix != suffix:
        raise InputError("to", str(to), f"must end in {suffix} for {format}, or be a folder")
    return to


@contextmanager
def _temporary_folder_beside(path: Path) -> Iterator[Path]:
    """Create a temporary folder on the same disk as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as folder:
        yield Path(folder)


@contextmanager
def _torch_messages_disabled() -> Iterator[None]:
    """Disable torch's warnings and log messages about its export internals."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)
