"""Verification of exported files: loaded back, their logits are compared with those of the run's network."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from budgetnet.common.errors import BudgetnetError, DataError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.downloads import needs_download
from budgetnet.evaluation.run_data import validation_images
from budgetnet.runs.records import RunRecord
from budgetnet.training.validation import EVALUATION_PIXELS

TOLERANCE = 1e-4
"""Largest difference between two logits that counts as rounding."""
_CHECK_SCRIPT = Path(__file__).with_name("isolated_check.py")
_MAX_IMAGES = 256
_MAX_PIXELS = 1 << 26
"""Limit over all images, so that fewer large images are compared."""


class Sample(NamedTuple):
    """Images on which two networks are compared."""

    batches: list[Tensor]
    """float32 (n, channels, height, width) from 0 to 1; the first batch holds one image."""
    description: str

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(map(len, self.batches))


def sample_images(record: RunRecord, *, data: str | None, load: Callable[[str], DataSet]) -> Sample:
    """Return validation images of a run, or seeded noise where its data set is not available.

    Args:
        record: the run.
        data: name of the run's data set; default: as recorded, but never downloaded.
        load: loads a data set by name.

    Raises:
        DataError: `data` cannot be loaded.
        InputError: `data` is not the data set that the run was trained on.
    """
    shape = record.identity.spec.input_shape
    pixels = math.prod(shape[1:])
    count = max(2, min(_MAX_IMAGES, _MAX_PIXELS // pixels))
    try:
        name = record.identity.data.name
        if data is None and needs_download(name):
            raise DataError("data", name, "is not available")
        images = validation_images(record, device=torch.device("cpu"), data=data, load=load).images[:count]
        description = "validation images"
    except (DataError, RecordError):
        if data is not None:
            raise
        noise = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
        images, description = torch.from_numpy(noise), "images of seeded noise (the run's data set is not available)"
    return Sample(list(scaled_batches(images)), description)


def scaled_batches(images: Tensor) -> Iterator[Tensor]:
    """Yield batches of images as exported networks take them; the first holds one image.

    Args:
        images: uint8 (n, channels, height, width), at least one.

    Yields:
        float32 (batch, channels, height, width) from 0 to 1.
    """
    size = max(1, EVALUATION_PIXELS // math.prod(images.shape[2:]))
    for batch in (images[:1], *torch.split(images[1:], size)):
        if len(batch):
            yield batch.float() / 255


def largest_difference(expected: Sequence[Tensor], exported: Sequence[Tensor]) -> float:
    """Return the largest absolute difference between the logits of two networks.

    Raises:
        BudgetnetError: it is above `TOLERANCE`, or a predicted class differs.
    """
    ours, theirs = torch.cat(list(expected)).double(), torch.cat(list(exported)).double()
    if ours.shape != theirs.shape:
        raise BudgetnetError(f"it returns logits of shape {tuple(theirs.shape)}, not {tuple(ours.shape)}")
    difference = (ours - theirs).abs().max().item()
    changed = int((ours.argmax(dim=1) != theirs.argmax(dim=1)).sum())
    # Not `difference > TOLERANCE`, which is false for NaN.
    if not difference <= TOLERANCE or changed:
        raise BudgetnetError(
            f"its logits differ from those of the run's network by up to {difference:.1e} (tolerance {TOLERANCE:.0e}), "
            f"and {changed} of {len(ours)} predictions differ"
        )
    return difference


@torch.no_grad()
def predict(network: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> list[Tensor]:
    """Return the logits of each batch."""
    return [network(batch) for batch in batches]


def predict_with_torch_export(path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
    """Return the logits of a torch.export program for each batch."""
    return predict(torch.export.load(path).module(), batches)


def predict_with_onnx_runtime(path: Path, batches: Iterable[Tensor]) -> list[Tensor]:
    """Check an ONNX model with ONNX's checker, and return its logits for each batch, computed on the CPU."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0]) for batch in batches]


def predict_in_isolation(module: Path, weights: Path, batches: Sequence[Tensor]) -> list[Tensor]:
    """Return the logits of an exported Python file, run in a process that cannot import budgetnet.

    Raises:
        BudgetnetError: the file fails there.
    """
    images, logits = (module.with_name(f"{name}.safetensors") for name in ("images", "logits"))
    save_file({f"{number:06}": batch.contiguous() for number, batch in enumerate(batches)}, images)
    arguments = [str(path) for path in (module, weights, images, logits)]
    # -I: neither the file's folder nor PYTHONPATH is on the import path.
    command = [sys.executable, "-I", str(_CHECK_SCRIPT), *arguments, str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BudgetnetError(f"it does not run without budgetnet: {last}")
    by_name = load_file(logits)
    return [by_name[name] for name in sorted(by_name)]
