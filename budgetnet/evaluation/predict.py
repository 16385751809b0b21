"""Prediction: class probabilities of images with a run's network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from budgetnet.common.errors import InputError
from budgetnet.data.on_device import to_device
from budgetnet.data.prediction_images import InputImage, load_images
from budgetnet.evaluation.inference import trained_network
from budgetnet.runs.records import RunRecord
from budgetnet.training.validation import Evaluator

_CHUNK = 1000
"""Images that are held in memory at a time."""


class Prediction(NamedTuple):
    """Prediction for one image, or the error if it cannot be read."""

    image: str
    """Path of its file, with the index in square brackets for an image of an array."""
    probabilities: npt.NDArray[np.float64] | None
    """Class probabilities (num_classes,); None if the image cannot be read."""
    error: InputError | None = None
    """Why the image cannot be read."""

    def top_classes(self, count: int) -> list[tuple[int, float]]:
        """Return index and probability of the ``count`` most probable classes; empty if the image cannot be read."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(int(number), float(self.probabilities[number])) for number in order]


def predict(
    record: RunRecord,
    images: Sequence[InputImage],
    *,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Predict the classes of images, as in evaluation, but always in float32.

    Probabilities are averaged over the views of the recipe's test-time augmentation (`test_time_flip`,
    `test_time_shifts`). Images are converted by `budgetnet.data.prediction_images`.

    Args:
        record: finished run.
        images: images, as listed there.
        device: device to compute on.
        progress: called with (predicted images, all images).

    Returns:
        One prediction for each image, in their order; one that cannot be read has its error.

    Raises:
        RecordError: the run's weights are damaged.
    """
    network = trained_network(record, device)
    predictions: list[Prediction] = []
    for start in range(0, len(images), _CHUNK):
        predictions += _predict(record, network, images[start : start + _CHUNK], device)
        if progress:
            progress(len(predictions), len(images))
    return predictions


def _predict(
    record: RunRecord, network: torch.nn.Module, images: Sequence[InputImage], device: torch.device
) -> list[Prediction]:
    data = record.identity.data
    loaded = load_images(images, input_shape=record.identity.spec.input_shape)
    arrays = [each for each in loaded if not isinstance(each, InputError)]
    probabilities = iter(np.empty((0, 0)))
    if arrays:
        labels = np.zeros(len(arrays), dtype=np.int64)
        inputs = to_device(np.stack(arrays), labels, device=device, mean=data.mean, std=data.std)
        scores = Evaluator(network, inputs, views=record.identity.recipe.views).log_probabilities()
        # In float64, so that distinct log-probabilities stay distinct.
        probabilities = iter(np.exp(scores.cpu().double().numpy()))
    return [
        Prediction(image.name, None, each)
        if isinstance(each, InputError)
        else Prediction(image.name, next(probabilities))
        for image, each in zip(images, loaded, strict=True)
    ]
