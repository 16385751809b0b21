"""What a run's network says of any pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from budgetnet.common.errors import InputError
from budgetnet.data.on_device import resident
from budgetnet.data.single_image import read_picture
from budgetnet.evaluation.inference import trained_network
from budgetnet.runs.records import RunRecord
from budgetnet.training.validation import Evaluator


class Prediction(NamedTuple):
    """What a network says of one picture, or why it could not be asked."""

    path: Path
    probabilities: npt.NDArray[np.float64] | None
    """Of each class (num_classes,); none where the picture could not be read."""
    error: InputError | None = None
    """Why not."""

    def likeliest(self, count: int) -> list[tuple[int, float]]:
        """The likeliest classes, each by its number and probability, the likeliest first; none without an answer."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(int(number), float(self.probabilities[number])) for number in order]


def predict(record: RunRecord, paths: Sequence[Path], *, device: torch.device) -> list[Prediction]:
    """Asks a run's network about pictures, as it was asked in its evaluation, but always in float32.

    The network sees the views of each picture that the recipe asks for (`test_time_flip`, `test_time_shifts`), and
    their probabilities are averaged. How pictures become images is in `budgetnet.data.single_image`. One that cannot be
    read keeps no other back.

    Args:
        record: the run.
        paths: the pictures.
        device: where to compute.

    Returns:
        One answer for each picture, in their order.

    Raises:
        RecordError: the run's weights are damaged.
    """
    spec, data = record.identity.spec, record.identity.data
    network = trained_network(record, device)
    images, errors = [], {}
    for number, path in enumerate(paths):
        try:
            images.append(read_picture(path, input_shape=spec.input_shape))
        except InputError as error:
            errors[number] = error
    if not images:
        return [Prediction(path, None, errors[number]) for number, path in enumerate(paths)]
    labels = np.zeros(len(images), dtype=np.int64)
    shown = resident(np.stack(images), labels, device=device, mean=data.mean, std=data.std)
    scores = Evaluator(network, shown, views=record.identity.recipe.views).log_probabilities()
    # In double precision, so that no two classes that differ come out alike.
    answers = iter(np.exp(scores.cpu().double().numpy()))
    return [
        Prediction(path, None, errors[number]) if number in errors else Prediction(path, next(answers))
        for number, path in enumerate(paths)
    ]
