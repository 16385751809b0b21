"""Evaluation against a count and a loss worked out in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import TINY
from torch import Tensor, nn

from budgetnet.data import DataSet
from budgetnet.data.device import resident
from budgetnet.evaluate import EVALUATION_PIXELS, Evaluation, evaluate


class FirstPixels(nn.Module):
    """The first ten pixels are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.sizes.append(len(images))
        return images.flatten(start_dim=1)[:, :10] * 3


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 1437])
@pytest.mark.parametrize("training", [True, False])
def test_loss_and_count_are_those_worked_out_by_hand(digits: DataSet, count: int, training: bool) -> None:
    images, labels = digits.train_images[:count], digits.train_labels[:count]
    data = resident(images, labels, device="cpu", mean=digits.mean, std=digits.std)
    network = FirstPixels().train(training)
    found = evaluate(network, data)

    logits = 3 * (images.reshape(count, -1)[:, :10].astype(np.float64) / 255 - digits.mean[0]) / digits.std[0]
    shares: Any = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(shares[np.arange(count), labels]).mean(), rel=1e-6)
    # Equal logits are many among these pixels; the first of the largest is taken, as numpy takes it.
    assert found.correct == int((logits.argmax(axis=1) == labels).sum())
    assert found.images == count
    assert found.accuracy == found.correct / count
    assert network.training is training
    assert sum(network.sizes) == count
    assert max(network.sizes) * 64 <= EVALUATION_PIXELS


def test_evaluation_leaves_weights_and_running_statistics_alone(digits: DataSet) -> None:
    data = resident(digits.train_images, digits.train_labels, device="cpu", mean=digits.mean, std=digits.std)
    network = TINY.build()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = evaluate(network, data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert evaluate(network, data) == first


def test_a_loss_beyond_the_numbers_is_told_as_such(digits: DataSet) -> None:
    data = resident(digits.train_images[:5], digits.train_labels[:5], device="cpu", mean=(0.0,), std=(0.0,))
    assert not np.isfinite(evaluate(FirstPixels(), data).loss)
    assert Evaluation(loss=1.0, correct=1, images=4).accuracy == 0.25
