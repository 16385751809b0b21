"""`export`: writes the network of a run to a file and verifies it before it replaces anything."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from budgetnet.common.errors import InputError
from budgetnet.common.extras import require_extra
from budgetnet.common.files import replace_atomically
from budgetnet.data import DataSet, load_dataset
from budgetnet.evaluation.inference import trained_network
from budgetnet.evaluation.run_data import class_names, read_runs
from budgetnet.exporting import verification
from budgetnet.exporting.formats import FORMATS, SUFFIXES, Format
from budgetnet.exporting.job import Job
from budgetnet.exporting.metadata import NORMALISED, PIXELS, as_json_strings
from budgetnet.exporting.onnx_model import write_onnx
from budgetnet.exporting.output import output_path, writing
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
    path = output_path(to, name=_file_name(record, format), suffix=SUFFIXES[format], form=format)
    load_once = cache(load)
    # Chosen through `choose_device`, which also checks this processor's arithmetic.
    network = trained_network(record, choose_device("cpu")).eval()
    sample = verification.sample_images(record, data=data, load=load_once)
    names = class_names(record, load=load_once)
    with writing(path) as temporary:
        job = Job(record, network, sample, names, temporary)
        paths, logits = _WRITERS[format](job)
        expected = verification.predict(job.with_normalisation(network), sample.batches)
        difference = verification.largest_difference(expected, logits)
        size = sum(each.stat().st_size for each in paths)
        # The main file comes last, so that its weights exist when it does.
        for each in reversed(paths):
            replace_atomically(each, path.with_name(each.name))
    final_paths = tuple(path.with_name(each.name) for each in paths)
    return Exported(final_paths, size, sample.images, sample.description, difference)


_Written = tuple[list[Path], list[Tensor]]
"""Files, the main one first, and the logits of the sample, computed from these files."""


def _write_safetensors(job: Job) -> _Written:
    write_safetensors(job.path, job.network.state_dict(), metadata=as_json_strings(job.metadata(NORMALISED)))
    loaded = job.record.identity.spec.build()
    load_weights(loaded, job.path)
    return [job.path], verification.predict(job.with_normalisation(loaded), job.sample.batches)


def _write_torch_export(job: Job) -> _Written:
    extra_files = {METADATA_FILE: json.dumps(job.metadata(PIXELS), indent=2)}
    # Through memory, because torch raises errors of its own, not OSError, when the disk is full.
    stream = io.BytesIO()
    torch.export.save(job.program(), stream, extra_files=extra_files)
    job.path.write_bytes(stream.getbuffer())
    return [job.path], verification.predict_with_torch_export(job.path, job.sample.batches)


def _write_onnx(job: Job) -> _Written:
    logits = write_onnx(job)
    return [job.path], logits


def _write_python(job: Job) -> _Written:
    weights = job.path.with_suffix(".weights.safetensors")
    write_safetensors(weights, job.network.state_dict(), metadata=as_json_strings(job.metadata(NORMALISED)))
    job.path.write_text(python_source(job.record, class_names=job.class_names), encoding="utf-8")
    return [job.path, weights], verification.predict_in_isolation(job.path, weights, job.sample.batches)


_WRITERS: dict[Format, Callable[[Job], _Written]] = {
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "torch-export": _write_torch_export,
    "python": _write_python,
}


def _file_name(record: RunRecord, format: Format) -> str:  # noqa: A002 - as above
    """Return the default name of the file, without its suffix."""
    name = record.folder.resolve().name
    if format != "python":
        return name
    # A name that can be imported.
    name = re.sub(r"\W", "_", name)
    return f"_{name}" if name[:1].isdigit() else name
