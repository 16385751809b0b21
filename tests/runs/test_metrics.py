"""Classification metrics against scikit-learn and small cases computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, log_loss, precision_score, recall_score

from budgetnet.common.errors import InputError
from budgetnet.runs.metrics import ClassScore, Scores, average
from budgetnet.statistics.intervals import wilson_interval

# Predicted: 0, 1, 0, 0, 1; true: 0, 1, 1, 0, 0. Three are correct, and class 2 has no images.
FIVE_IMAGES = Scores(
    np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.25, 0.25], [0.9, 0.1, 0.0], [0.25, 0.75, 0.0]]),
    np.array([0, 1, 1, 0, 0]),
)


def random_scores(images: int, classes: int, seed: int, *, dtype: Any = np.float64) -> Scores:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(classes, 0.3), images).astype(dtype)
    return Scores(probabilities, generator.integers(0, classes, images))


def test_metrics_of_five_images() -> None:
    assert (FIVE_IMAGES.images, FIVE_IMAGES.num_classes) == (5, 3)
    assert FIVE_IMAGES.predictions.tolist() == [0, 1, 0, 0, 1]
    assert FIVE_IMAGES.right.tolist() == [True, True, False, True, False]
    assert (FIVE_IMAGES.correct, FIVE_IMAGES.accuracy) == (3, 0.6)
    assert FIVE_IMAGES.interval == wilson_interval(3, 5)
    assert FIVE_IMAGES.loss == pytest.approx(-math.log(0.7 * 0.8 * 0.25 * 0.9 * 0.25) / 5)
    assert FIVE_IMAGES.confusion().tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert FIVE_IMAGES.per_class(["cat", "dog", "owl"]) == [
        ClassScore("cat", 3, 2, 2 / 3, wilson_interval(2, 3), 2 / 3),
        ClassScore("dog", 2, 1, 1 / 2, wilson_interval(1, 2), 1 / 2),
        ClassScore("owl", 0, 0, None, None, None),
    ]


def test_calibration_of_five_images() -> None:
    # Confidences 0.7, 0.8, 0.5, 0.9, 0.75; 0.5 and 0.75 lie on edges of the four bins and belong to the lower ones.
    # (0.25, 0.5]: 0.5, wrong. (0.5, 0.75]: 0.7 right, 0.75 wrong. (0.75, 1]: 0.8 and 0.9, right.
    ece, bins = FIVE_IMAGES.calibration(4)
    assert ece == pytest.approx(1 / 5 * 0.5 + 2 / 5 * abs(0.5 - 0.725) + 2 / 5 * abs(1 - 0.85))
    assert [(part.low, part.high, part.count, part.accuracy) for part in bins] == [
        (0.0, 0.25, 0, None),
        (0.25, 0.5, 1, 0.0),
        (0.5, 0.75, 2, 0.5),
        (0.75, 1.0, 2, 1.0),
    ]
    assert [part.confidence for part in bins] == pytest.approx([None, 0.5, 0.725, 0.85])


def test_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    for bins in range(2, 40):
        edges = [step / bins for step in range(math.ceil(bins / 2), bins + 1)]
        scores = Scores(np.array([[edge, 1 - edge] for edge in edges]), np.zeros(len(edges), int))
        counts = [part.count for part in scores.calibration(bins).bins]
        assert counts == [0] * (bins - len(edges)) + [1] * len(edges)


@given(st.integers(1, 300), st.integers(2, 12), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_calibration_equals_a_loop_over_images(images: int, classes: int, bins: int, seed: int) -> None:
    scores = random_scores(images, classes, seed)
    found = scores.calibration(bins)
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for row, label in zip(scores.probabilities.tolist(), scores.labels.tolist(), strict=True):
        confidence = max(row)
        index = next(number for number in range(bins) if confidence <= (number + 1) / bins or number == bins - 1)
        members[index].append((confidence, row.index(confidence) == label))
    error = 0.0
    for part, inside in zip(found.bins, members, strict=True):
        assert part.count == len(inside)
        if inside:
            confidence = sum(value for value, _ in inside) / len(inside)
            accuracy = sum(correct for _, correct in inside) / len(inside)
            assert part.confidence == pytest.approx(confidence)
            assert part.accuracy == pytest.approx(accuracy)
            error += len(inside) / images * abs(accuracy - confidence)
    assert found.ece == pytest.approx(error, abs=1e-12)


def test_calibrated_probabilities_have_a_small_calibration_error() -> None:
    generator = np.random.default_rng(2017)
    probabilities = generator.dirichlet(np.ones(4), 40_000)
    labels = (probabilities.cumsum(axis=1) < generator.random((40_000, 1))).sum(axis=1)
    calibrated = Scores(probabilities, labels.clip(max=3))
    overconfident = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    # Sampling noise alone gives about √(2 / π) standard errors in each bin of about 3,000 images.
    assert calibrated.calibration().ece < 0.01
    assert Scores(overconfident, calibrated.labels).calibration().ece > 0.15


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_metrics_equal_those_of_scikit_learn(dtype: Any) -> None:
    scores = random_scores(2_000, 10, 3, dtype=dtype)
    predictions, labels = scores.probabilities.argmax(axis=1), scores.labels
    assert scores.confusion().tolist() == confusion_matrix(labels, predictions).tolist()
    rows = scores.per_class()
    assert [row.name for row in rows] == [str(number) for number in range(10)]
    assert [row.accuracy for row in rows] == pytest.approx(list(recall_score(labels, predictions, average=None)))
    assert [row.precision for row in rows] == pytest.approx(list(precision_score(labels, predictions, average=None)))
    assert [row.interval for row in rows] == [wilson_interval(row.correct, row.images) for row in rows]
    possible = scores.probabilities[np.arange(2_000), labels] > 1e-15  # scikit-learn clips smaller ones
    likely = Scores(scores.probabilities[possible], labels[possible])
    expected = log_loss(likely.labels, likely.probabilities / likely.probabilities.sum(axis=1, keepdims=True))
    assert likely.loss == pytest.approx(expected, rel=1e-6)


def test_a_probability_of_zero_gives_a_finite_loss() -> None:
    scores = Scores(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1, 0]))
    assert scores.loss == pytest.approx(126 * math.log(2) / 2)
    assert Scores(np.array([[1.0, 1e-30]]), np.array([1])).loss == pytest.approx(30 * math.log(10))


def test_ties_are_predicted_as_the_first_class() -> None:
    assert Scores(np.full((1, 4), 0.25), np.array([0])).predictions.tolist() == [0]


def test_scores_are_read_only_copies() -> None:
    probabilities, labels = np.array([[0.25, 0.75]]), np.array([1])
    scores = Scores(probabilities, labels)
    probabilities[0], labels[0] = (1, 0), 0
    assert scores.accuracy == 1
    for array in (scores.probabilities, scores.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_probabilities_in_half_precision_are_accepted() -> None:
    rounded = np.random.default_rng(1).dirichlet(np.ones(100), 50).astype(np.float16)
    assert np.abs(rounded.astype(float).sum(axis=1) - 1).max() > 1e-5
    assert Scores(rounded, np.zeros(50, int)).probabilities.dtype == np.float64


def test_an_ensemble_averages_probabilities() -> None:
    # Unlike in a majority vote, one confident prediction of class 0 outweighs two uncertain ones of class 1.
    labels = np.array([0])
    members = [Scores(np.array([row]), labels) for row in ([0.45, 0.55], [0.45, 0.55], [0.9, 0.1])]
    ensemble = average(members)
    assert ensemble.probabilities.tolist() == [[pytest.approx(0.6), pytest.approx(0.4)]]
    assert (ensemble.correct, [member.correct for member in members]) == (1, [0, 0, 1])
    assert average(members[:1]).probabilities.tolist() == [[0.45, 0.55]]


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize(("images", "classes"), [(7, 3), (40, 10), (500, 4)])
def test_balanced_accuracy_is_that_of_scikit_learn(images: int, classes: int) -> None:
    for seed in range(5):
        scores = random_scores(images, classes, seed)
        expected = balanced_accuracy_score(scores.labels, scores.predictions)
        assert scores.balanced_accuracy == pytest.approx(expected)


def test_ensemble_members_must_have_the_same_images() -> None:
    first = random_scores(4, 3, 0)
    other_labels = Scores(first.probabilities, (first.labels + 1) % 3)
    for wrong, field in [
        (other_labels, "members[1].labels"),
        (random_scores(5, 3, 0), "members[1].probabilities"),
        (random_scores(4, 2, 0), "members[1].probabilities"),
    ]:
        with pytest.raises(InputError) as caught:
            average([first, wrong])
        assert caught.value.field == field
    with pytest.raises(InputError, match="at least one"):
        average([])


GOOD = np.array([[0.5, 0.5], [0.1, 0.9]])
LABELS = np.array([0, 1])


@pytest.mark.parametrize(
    ("probabilities", "labels", "field"),
    [
        (np.array([0.5, 0.5]), LABELS, "probabilities"),
        (np.zeros((0, 2)), np.zeros(0, int), "probabilities"),
        (np.zeros((2, 0)), LABELS, "probabilities"),
        (np.array([[1, 0], [0, 1]]), LABELS, "probabilities"),
        (np.array([[0.5, 0.5], [math.nan, 1.0]]), LABELS, "probabilities[1]"),
        (np.array([[math.inf, 0.5], [0.5, 0.5]]), LABELS, "probabilities[0]"),
        (np.array([[math.inf, -math.inf], [0.5, 0.5]]), LABELS, "probabilities[0]"),
        (np.array([[0.5, 0.5], [-0.5, 1.5]]), LABELS, "probabilities[1]"),
        (np.array([[0.5, 0.5], [0.5, 0.5011]]), LABELS, "probabilities[1]"),
        (np.array([[0.5, 0.4989], [0.5, 0.5]]), LABELS, "probabilities[0]"),
        (np.array([[2.0, -1.5], [3.0, 4.0]]), LABELS, "probabilities[0]"),
        (GOOD, np.array([0]), "labels"),
        (GOOD, np.array([[0], [1]]), "labels"),
        (GOOD, np.array([0.0, 1.0]), "labels"),
        (GOOD, np.array([0, 2]), "labels[1]"),
        (GOOD, np.array([-1, 0]), "labels[0]"),
    ],
)
def test_invalid_scores_name_the_field(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        Scores(probabilities, labels)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_invalid_arguments_name_the_field() -> None:
    with pytest.raises(InputError, match="names"):
        FIVE_IMAGES.per_class(["cat", "dog"])
    for bins in (0, -3, 2.5):
        with pytest.raises(InputError, match="bins"):
            FIVE_IMAGES.calibration(bins)  # type: ignore[arg-type]
