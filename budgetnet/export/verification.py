"""Exported files loaded back, and what they say compared with what the run's own network says."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from budgetnet.common.errors import BudgetnetError, DataError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.sources import needs_download
from budgetnet.evaluation.run_data import validation_images
from budgetnet.runs.records import RunRecord
from budgetnet.training.validation import EVALUATION_PIXELS

TOLERANCE = 1e-4
"""Largest difference between two logits that is taken for rounding."""
_STRANGER = Path(__file__).with_name("isolated_check.py")
_MOST_IMAGES = 256
_MOST_PIXELS = 1 << 26
"""Pixels looked at, all images together: large images are fewer."""


class Sample(NamedTuple):
    """Images that a network is asked about, before and after."""

    batches: list[Tensor]
    """float32 (n, channels, height, width) from 0 to 1: first one image by itself, then others together."""
    words: str
    """What images they are."""

    @property
    def images(self) -> int:
        """How many images there are."""
        return sum(map(len, self.batches))


def sample(record: RunRecord, *, data: str | None, load: Callable[[str], DataSet]) -> Sample:
    """Images to compare networks on: some that the run was validated on, or noise where those are not to be had.

    Args:
        record: the run.
        data: where its data set is now; where its record has it if left out, unless it would have to be downloaded.
        load: how data sets are loaded by name.

    Raises:
        DataError: `data` cannot be loaded.
        InputError: `data` is not what the run was trained on.
    """
    shape = record.identity.spec.input_shape
    pixels = math.prod(shape[1:])
    most = max(2, min(_MOST_IMAGES, _MOST_PIXELS // pixels))
    try:
        name = record.identity.data.name
        if data is None and needs_download(name):
            raise DataError("data", name, "is not here")
        found = validation_images(record, device=torch.device("cpu"), data=data, load=load).images[:most]
        words = "validation images"
    except (DataError, RecordError):
        if data is not None:
            raise
        noise = np.random.default_rng(0).integers(0, 256, (most, *shape), dtype=np.uint8)
        found, words = torch.from_numpy(noise), "images of seeded noise, as the run's own are not to be had here"
    scaled = found.float() / 255
    return Sample([scaled[:1], *torch.split(scaled[1:], max(1, EVALUATION_PIXELS // pixels))], words)


def largest_difference(expected: Sequence[Tensor], said: Sequence[Tensor]) -> float:
    """The largest difference between the logits of two networks.

    Raises:
        BudgetnetError: it is more than rounding, or a prediction is another one.
    """
    ours, theirs = torch.cat(list(expected)).double(), torch.cat(list(said)).double()
    if ours.shape != theirs.shape:
        raise BudgetnetError(f"gives logits of shape {tuple(theirs.shape)}, not {tuple(ours.shape)}")
    difference = (ours - theirs).abs().max().item()
    changed = int((ours.argmax(dim=1) != theirs.argmax(dim=1)).sum())
    # So written that no number is no small number.
    if not difference <= TOLERANCE or changed:
        raise BudgetnetError(
            f"says something else than the run's network: logits differ by up to {difference:.1e}, where "
            f"{TOLERANCE:.0e} is rounding, and {changed} of {len(ours)} predictions differ"
        )
    return difference


@torch.no_grad()
def ask(network: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> list[Tensor]:
    """What a network says of batches of images."""
    return [network(batch) for batch in batches]


def ask_program(path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
    """What a program that torch exported says."""
    return ask(torch.export.load(path).module(), batches)


def ask_onnx(path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
    """What an ONNX file says, by ONNX Runtime on the CPU, once ONNX's checker finds it well formed."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0]) for batch in batches]


def ask_stranger(module: Path, weights: Path, batches: Sequence[Tensor]) -> list[Tensor]:
    """What a Python file says in an interpreter that cannot import budgetnet.

    Raises:
        BudgetnetError: it does not run there.
    """
    images, logits = (module.with_name(f"{name}.safetensors") for name in ("images", "logits"))
    save_file({f"{number:06}": batch.contiguous() for number, batch in enumerate(batches)}, images)
    arguments = [str(path) for path in (module, weights, images, logits)]
    # Isolated: no module beside the file, none that the environment names.
    command = [sys.executable, "-I", str(_STRANGER), *arguments, str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BudgetnetError(f"does not run by itself: {last}")
    said = load_file(logits)
    return [said[name] for name in sorted(said)]
