"""Evaluation against counts and losses computed with NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from evaluation_support import reference_views
from scipy.special import softmax
from sklearn.metrics import confusion_matrix
from support import TINY
from torch import Tensor, nn

from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.data.on_device import to_device
from budgetnet.runs.recipe import Views
from budgetnet.training.validation import EVALUATION_PIXELS, Evaluation, Evaluator


class FirstPixels(nn.Module):
    """Returns the first ten pixels, times three, as logits."""

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
def test_loss_and_accuracy_match_numpy(digits: DataSet, count: int, training: bool) -> None:
    images, labels = digits.train_images[:count], digits.train_labels[:count]
    data = to_device(images, labels, device="cpu", mean=digits.mean, std=digits.std)
    network = FirstPixels().train(training)
    found = Evaluator(network, data)()

    logits = 3 * (images.reshape(count, -1)[:, :10].astype(np.float64) / 255 - digits.mean[0]) / digits.std[0]
    shares: Any = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(shares[np.arange(count), labels]).mean(), rel=1e-6)
    # Many logits are equal; torch and NumPy both return the first maximum.
    assert found.correct == int((logits.argmax(axis=1) == labels).sum())
    assert found.images == count
    assert found.accuracy == found.correct / count
    assert network.training is training
    assert sum(network.sizes) == count
    assert max(network.sizes) * 64 <= EVALUATION_PIXELS


@pytest.mark.parametrize("count", [5, 1437])
def test_confusion_matches_scikit_learn(digits: DataSet, count: int) -> None:
    images, labels = digits.train_images[:count], digits.train_labels[:count]
    data = to_device(images, labels, device="cpu", mean=digits.mean, std=digits.std)
    evaluator = Evaluator(FirstPixels(), data)
    found = evaluator()
    logits = (images.reshape(count, -1)[:, :10].astype(np.float64) / 255 - digits.mean[0]) / digits.std[0]
    expected = confusion_matrix(labels, logits.argmax(axis=1), labels=range(10))
    assert evaluator.confusion(10) == expected.tolist()
    assert found.correct == expected.trace()


def test_evaluation_changes_no_weights_and_running_statistics(digits: DataSet) -> None:
    data = to_device(digits.train_images, digits.train_labels, device="cpu", mean=digits.mean, std=digits.std)
    network = TINY.build()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = Evaluator(network, data)()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert Evaluator(network, data)() == first


def test_a_loss_that_is_not_finite_is_returned(digits: DataSet) -> None:
    data = to_device(digits.train_images[:5], digits.train_labels[:5], device="cpu", mean=(0.0,), std=(0.0,))
    assert not np.isfinite(Evaluator(FirstPixels(), data)().loss)
    assert Evaluation(loss=1.0, correct=1, images=4).accuracy == 0.25


def test_flip_averages_the_probabilities_of_image_and_mirror_image(digits: DataSet) -> None:
    # Random images: many first pixels of the digits are equal, and ties could be decided by rounding.
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    labels = digits.train_labels[:300]
    data = to_device(images, labels, device="cpu", mean=digits.mean, std=digits.std)
    found = Evaluator(FirstPixels(), data, views="flip")()

    def probabilities(images: Any) -> Any:
        logits = 3 * (images.reshape(300, -1)[:, :10].astype(np.float64) / 255 - digits.mean[0]) / digits.std[0]
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    mean = (probabilities(images) + probabilities(images[:, :, :, ::-1])) / 2
    assert found.loss == pytest.approx(-np.log(mean[np.arange(300), labels]).mean(), rel=1e-6)
    assert found.correct == int((mean.argmax(axis=1) == labels).sum())
    assert found != Evaluator(FirstPixels(), data)()


class Sums(nn.Module):
    """Linear network whose logits depend on every pixel."""

    def forward(self, images: Tensor) -> Tensor:
        weights = torch.linspace(-1, 1, images[0].numel() * 10, dtype=images.dtype).sin_()
        return images.flatten(start_dim=1) @ weights.reshape(-1, 10)


def test_six_views_are_averaged_with_their_weights(digits: DataSet) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 3, 5, 7), dtype=np.uint8)
    labels = digits.train_labels[:300]
    data = to_device(images, labels, device="cpu", mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
    evaluator = Evaluator(Sums(), data, views="flip-and-shifts")
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
    views = reference_views((images / 255 - mean) / std, "flip-and-shifts")
    expected = np.mean([softmax(Sums()(torch.from_numpy(view.copy())).numpy(), axis=1) for view in views], axis=0)
    np.testing.assert_allclose(evaluator.log_probabilities().exp().numpy(), expected, atol=1e-5)
    found = evaluator()
    assert found.loss == pytest.approx(-np.log(expected[np.arange(300), labels]).mean(), rel=1e-5)
    assert found.correct == int((expected.argmax(axis=1) == labels).sum())


def test_images_of_a_single_row_cannot_be_shifted(digits: DataSet) -> None:
    data = to_device(digits.train_images[:5, :, :1], digits.train_labels[:5], device="cpu", mean=(0.0,), std=(1.0,))
    with pytest.raises(InputError, match=r"^views = 'flip-and-shifts': needs images of at least 2x2 pixels, not 1x8$"):
        Evaluator(Sums(), data, views="flip-and-shifts")


@pytest.mark.gpu
@pytest.mark.parametrize("views", ["none", "flip", "flip-and-shifts"])
def test_graphed_evaluation_uses_the_current_weights(digits: DataSet, views: Views) -> None:
    data = to_device(digits.train_images, digits.train_labels, device="cuda", mean=digits.mean, std=digits.std)
    network = TINY.build().cuda()
    evaluators = [Evaluator(network, data, views=views, record=record) for record in (True, False)]
    for _ in range(6):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.1)
        graphed, plain = (evaluator() for evaluator in evaluators)
        assert graphed.loss == pytest.approx(plain.loss, rel=1e-5)
        assert graphed.correct == plain.correct
