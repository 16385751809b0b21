"""From a run to a file that is used without budgetnet, compared with the run's network before it is put in place."""

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from budgetnet.common.errors import BudgetnetError, InputError
from budgetnet.common.files import put_in_place
from budgetnet.data import DataSet, load_dataset
from budgetnet.evaluation.inference import trained_network
from budgetnet.evaluation.run_data import class_names, read_runs
from budgetnet.export import verification
from budgetnet.export.classifier import Classifier
from budgetnet.export.metadata import NORMALISED, PIXELS, as_texts, facts_of
from budgetnet.export.source import python_source
from budgetnet.runs.records import RunRecord
from budgetnet.training.checkpoint import load_weights, write_safetensors
from budgetnet.training.devices import choose_device

Format = Literal["safetensors", "onnx", "torch-export", "python"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2", "python": ".py"}
FACTS_FILE = "budgetnet.json"
"""Under this name a program of torch holds what it says of itself."""


class Exported(NamedTuple):
    """What was written, and how near it comes to the run's network."""

    paths: tuple[Path, ...]
    """The file; of a Python file also its weights."""
    size: int
    """Bytes, all files together."""
    images: int
    """Images on which both networks were asked."""
    compared_on: str
    """What images these were."""
    difference: float
    """Largest difference between two logits; no prediction differed."""


def export(
    run: str | Path,
    *,
    format: Format,  # noqa: A002 - what everybody calls it
    to: str | Path | None = None,
    data: str | None = None,
    load: Callable[[str], DataSet] = load_dataset,
) -> Exported:
    """Writes a trained network into a file that is used without budgetnet.

    The file is loaded back first and asked about images, as is the run's own network, on the CPU and in float32. What
    says something else is not put in place. See `budgetnet.export` for what exported networks take and give.

    Args:
        run: the run's folder.
        format: ``safetensors``: weights, and what is known of them. ``onnx``: an ONNX model. ``torch-export``: what
            `torch.export.load` loads. ``python``: a PyTorch file to read, with its weights in a file beside it.
        to: the file, or a folder for it; what lies there is replaced. Called by the run, here, if left out.
        data: where the run's data set is now, as ``folder:PATH``; where its record has it if left out.
        load: how data sets are loaded by name.

    Raises:
        InputError: the format is none, or the file's name does not suit it; what writes or runs ONNX is not installed;
            `data` is not what the run was trained on.
        RecordError: the folder holds no run, or one that is unfinished, came to no result or keeps no network.
        BudgetnetError: what was written says something else than the run's network.
        OSError: the file cannot be written.
    """
    if format not in FORMATS:
        raise InputError("format", format, f"must be one of {', '.join(FORMATS)}")
    if format == "onnx":
        _require_onnx()
    (record,) = read_runs([Path(run)])
    path = _target(record, format, None if to is None else Path(to))
    loaded = cache(load)
    # It also sees to that this processor computes rightly.
    network = trained_network(record, choose_device("cpu")).eval()
    sample = verification.sample(record, data=data, load=loaded)
    names = class_names(record, load=loaded)
    with _beside(path) as folder, _quietly():
        work = _Work(record, network, sample, names, folder / path.name)
        try:
            paths, said = _WRITERS[format](work)
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from None
        try:
            difference = verification.largest_difference(work.expected, said)
        except BudgetnetError as error:
            raise BudgetnetError(f"{path}: was not written, as it {error}") from None
        size = sum(each.stat().st_size for each in paths)
        # The file that is asked for comes last: where it stands, its weights do as well.
        for each in reversed(paths):
            put_in_place(each, path.with_name(each.name))
    return Exported(tuple(path.with_name(each.name) for each in paths), size, sample.images, sample.words, difference)


class _Work(NamedTuple):
    """What a writer needs."""

    record: RunRecord
    network: nn.Module
    sample: verification.Sample
    class_names: Sequence[str]
    path: Path
    """Where to write for now."""

    def around(self, network: nn.Module) -> Classifier:
        """A network together with the normalisation that the run's own knows."""
        data = self.record.identity.data
        return Classifier(network, mean=data.mean, std=data.std).eval()

    @property
    def expected(self) -> list[Tensor]:
        """What the run's network says of the images."""
        return verification.ask(self.around(self.network), self.sample.batches)

    def facts(self, images: str) -> dict[str, Any]:
        """What the file says of itself."""
        return facts_of(self.record, class_names=self.class_names, images=images)


_Written = tuple[list[Path], list[Tensor]]
"""Files, the one that was asked for first, and what its network says of the images."""


def _write_safetensors(work: _Work) -> _Written:
    write_safetensors(work.path, work.network.state_dict(), metadata=as_texts(work.facts(NORMALISED)))
    other = work.record.identity.spec.build()
    load_weights(other, work.path)
    return [work.path], verification.ask(work.around(other), work.sample.batches)


def _write_program(work: _Work) -> _Written:
    facts = {FACTS_FILE: json.dumps(work.facts(PIXELS), indent=2)}
    # Through memory, as torch tells of a full disk in ways of its own.
    stream = io.BytesIO()
    torch.export.save(_program(work), stream, extra_files=facts)
    work.path.write_bytes(stream.getbuffer())
    return [work.path], verification.ask_program(work.path, work.sample.batches)


def _write_onnx(work: _Work) -> _Written:
    written = torch.onnx.export(
        _program(work), input_names=["images"], output_names=["logits"], dynamo=True, external_data=False, verbose=False
    )
    if written is None:
        raise BudgetnetError(f"{work.path.name}: torch wrote no ONNX model")
    graph = written.model.graph
    for part in (graph, *graph.inputs, *graph, *(output for node in graph for output in node.outputs)):
        # Remarks on how each node came about, several times as large as a small network.
        part.metadata_props.clear()
    written.model.metadata_props.update(as_texts(work.facts(PIXELS)))
    written.save(work.path)
    return [work.path], verification.ask_onnx(work.path, work.sample.batches)


def _write_python(work: _Work) -> _Written:
    weights = work.path.with_suffix(".weights.safetensors")
    write_safetensors(weights, work.network.state_dict(), metadata=as_texts(work.facts(NORMALISED)))
    work.path.write_text(python_source(work.record, class_names=work.class_names), encoding="utf-8")
    try:
        return [work.path, weights], verification.ask_stranger(work.path, weights, work.sample.batches)
    except BudgetnetError as error:
        raise BudgetnetError(f"{work.path.name}: was not written, as it {error}") from None


_WRITERS: dict[Format, Callable[[_Work], _Written]] = {
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "torch-export": _write_program,
    "python": _write_python,
}


def _program(work: _Work) -> torch.export.ExportedProgram:
    """The network as torch records it, for any number of images."""
    # Two, as one would be taken for the only number there is.
    images = torch.zeros(2, *work.record.identity.spec.input_shape)
    network, batch = work.around(work.network), torch.export.Dim("batch")
    program = torch.export.export(network, (images,), dynamic_shapes={"images": {0: batch}}, strict=False)
    for node in program.graph.nodes:
        # Where on this machine a line of source stands is nobody's business.
        node.meta.pop("stack_trace", None)
    return program


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        rule = f"needs the extra budgetnet[export], of which {', '.join(missing)} is not installed"
        raise InputError("format", "onnx", rule)


def _target(record: RunRecord, format: Format, to: Path | None) -> Path:  # noqa: A002 - as above
    name, suffix = record.folder.resolve().name, SUFFIXES[format]
    if format == "python":
        # Such as can be imported.
        name = re.sub(r"\W", "_", name)
        name = f"_{name}" if name[:1].isdigit() else name
    if to is None or to.is_dir():
        return (to or Path()) / f"{name}{suffix}"
    if to.suffix != suffix:
        raise InputError("to", str(to), f"must end in {suffix} for {format}, or be a folder")
    return to


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder on the same disk as a file, gone behind the block with all that is left in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as folder:
        yield Path(folder)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps torch's remarks on its own inner workings to itself."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)
