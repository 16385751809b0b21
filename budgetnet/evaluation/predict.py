"""Prediction: class probabilities of image files with a run's network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from budgetnet.common.errors import InputError
from budgetnet.data.on_device import to_device
from budgetnet.data.single_image import load_image
from budgetnet.evaluation.inference import trained_network
from budgetnet.runs.records import RunRecord
from budgetnet.training.validation import Evaluator


class Prediction(NamedTuple):
    """Prediction for one image file, or the error if it cannot be read."""

    path: Path
    probabilities: npt.NDArray[np.float64] | None
    """Class probabilities (num_classes,); None if the file cannot be read."""
    error: InputError | None = None
    """Why the file cannot be read."""

    def top_classes(self, count: int) -> list[tuple[int, float]]:
        """Return index and probability of the ``count`` most probable classes; empty if the file cannot be read."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(int(number), float(self.probabilities[number])) for number in order]


def predict(record: RunRecord, paths: Sequence[Path], *, device: torch.device) -> list[Prediction]:
    """Predict the classes of image files, as in evaluation, but always in float32.

    Probabilities are averaged over the views of the recipe's test-time augmentation (`test_time_flip`,
    `test_time_shifts`). Image files are converted by `budgetnet.data.single_image`.

    Args:
        record: finished run.
        paths: image files.
        device: device to compute on.

    Returns:
        One prediction for each file, in the order of ``paths``; a file that cannot be read has its error.

    Raises:
        RecordError: the run's weights are damaged.
    """
    spec, data = record.identity.spec, record.identity.data
    network = trained_network(record, device)
    images, errors = [], {}
    for number, path in enumerate(paths):
        try:
            images.append(load_image(path, input_shape=spec.input_shape))
        except InputError as error:
            errors[number] = error
    if not images:
        return [Prediction(path, None, errors[number]) for number, path in enumerate(paths)]
    labels = np.zeros(len(images), dtype=np.int64)
    inputs = to_device(np.stack(images), labels, device=device, mean=data.mean, std=data.std)
    scores = Evaluator(network, inputs, views=record.identity.recipe.views).log_probabilities()
    # In float64, so that distinct log-probabilities stay distinct.
    probabilities = iter(np.exp(scores.cpu().double().numpy()))
    return [
        Prediction(path, None, errors[number]) if number in errors else Prediction(path, next(probabilities))
        for number, path in enumerate(paths)
    ]
