"""Evaluation results: metrics of single runs, pairwise comparisons and ensembles, all from stored predictions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np

from budgetnet.common.errors import InputError
from budgetnet.runs.metrics import Scores, average
from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.runs.recipe import LEAKAGE_WARNING, Views
from budgetnet.runs.records import RunRecord
from budgetnet.statistics import PredictionComparison, compare_predictions, holm

Part = Literal["validation", "test"]
"""Validation images of a run, or a test set."""

BINS = 15
"""Default number of bins of the expected calibration error, as in Guo et al. (2017)."""

ENSEMBLE = "ensemble"
"""Name of the ensemble in comparisons with its members."""


class EvaluatedRun(NamedTuple):
    """A run and its predictions on a set of images."""

    record: RunRecord
    scores: Scores
    part: Part
    """Whether the images are the run's validation images or a test set."""
    images: str
    """Identity of the images, equal for runs that can be compared; for a test set, the data set's fingerprint."""
    class_names: tuple[str, ...]
    """Names of the classes."""
    views: Views
    """Test-time augmentation; probabilities are averaged over the views of each image."""
    kept: bool
    """Whether the predictions were stored in the run folder, so that the test set was not opened."""

    @property
    def run(self) -> str:
        """Name of the run's folder."""
        return self.record.folder.name

    @property
    def leaks(self) -> bool:
        """Whether the network was trained on these images, by its own recipe."""
        return self.part == "validation" and self.record.identity.recipe.leaks

    @property
    def foreign(self) -> bool:
        """Whether the images are the test set of a data set other than the training data set."""
        return self.part == "test" and self.images != self.record.identity.data.fingerprint

    @property
    def remarks(self) -> list[str]:
        """Notes needed to interpret the accuracy."""
        result, remarks = self.record.result, [LEAKAGE_WARNING] if self.leaks else []
        if self.foreign:
            remarks.append(f"not the data set that it was trained on ({self.record.identity.data.name})")
        if result.status == "stopped":
            remarks.append(f"stopped early, after epoch {result.epochs}: {result.reason}")
        as_trained = self.views == self.record.identity.recipe.views
        if self.part == "validation" and as_trained and result.validation_correct != self.scores.correct:
            remarks.append(
                f"during training {result.validation_correct:,} of {result.validation_images:,} were correct: images "
                "or floating-point arithmetic differed"
            )
        return remarks

    def to_mapping(self, *, bins: int = BINS) -> dict[str, Any]:
        """Return plain data: accuracies and errors from 0 to 1, loss in nats.

        Args:
            bins: number of bins of the calibration.

        Raises:
            InputError: invalid number of bins.
        """
        return {
            **_run_fields(self.record),
            "on": self.part,
            "views": self.views,
            "kept": self.kept,
            "foreign": self.foreign,
            **_metrics(self.scores, bins),
            "leaks": self.leaks,
            "remarks": self.remarks,
            "classes": [each._asdict() for each in self.scores.per_class(self.class_names)],
            "confusion": self.scores.confusion().tolist(),
            "calibration": [vars(each) for each in self.scores.calibration(bins).bins],
        }


class Comparison(NamedTuple):
    """Comparison of two networks on the same images, one of a family of comparisons."""

    first: str
    """Run folder, or ``ensemble``."""
    second: str
    """Run folder."""
    outcome: PredictionComparison
    adjusted_p: float
    """P-value of McNemar's test with Holm's correction for the family."""

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data; the difference is the accuracy of the first minus that of the second, from -1 to 1."""
        outcome = self.outcome
        return {
            "first": self.first,
            "second": self.second,
            "images": outcome.images,
            "difference": outcome.difference,
            "interval": list(outcome.interval),
            "only_first": outcome.mcnemar.only_first,
            "only_second": outcome.mcnemar.only_second,
            "p": outcome.mcnemar.p_value,
            "p_holm": self.adjusted_p,
        }


class Confusion(NamedTuple):
    """Images of one class that were classified as another."""

    truth: str
    predicted: str
    images: int
    share: float
    """Share of the images of the true class."""


class EnsembleResult(NamedTuple):
    """Ensemble of networks, whose probabilities are averaged for each image."""

    members: tuple[tuple[RunRecord, Scores], ...]
    """Runs and their own predictions."""
    scores: Scores
    """Predictions of the ensemble."""
    comparisons: tuple[Comparison, ...]
    """Ensemble against each member, in the order of the members, with Holm's correction for all of them."""

    @property
    def best(self) -> int:
        """Index of the most accurate member; ties are broken by the lower loss."""
        ranks = [(-scores.correct, scores.loss) for _, scores in self.members]
        return ranks.index(min(ranks))

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy of the members, from 0 to 1."""
        return fmean(scores.accuracy for _, scores in self.members)

    @property
    def mean_loss(self) -> float:
        """Mean loss of the members, in nats."""
        return fmean(scores.loss for _, scores in self.members)

    def mean_ece(self, bins: int = BINS) -> float:
        """Return the mean expected calibration error of the members."""
        return fmean(scores.calibration(bins).ece for _, scores in self.members)

    @property
    def params(self) -> int:
        """Parameters of all members together, frozen ones included."""
        return sum(record.result.params for record, _ in self.members)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of all members together, for one view of one image."""
        return sum(record.result.macs for record, _ in self.members)

    def to_mapping(self, *, bins: int = BINS) -> dict[str, Any]:
        """Return plain data: accuracies and errors from 0 to 1, loss in nats.

        Args:
            bins: number of bins of the calibration errors.

        Raises:
            InputError: invalid number of bins.
        """
        return {
            "members": [{**_run_fields(record), **_metrics(scores, bins)} for record, scores in self.members],
            "mean": {"accuracy": self.mean_accuracy, "loss": self.mean_loss, "ece": self.mean_ece(bins)},
            "ensemble": {"params": self.params, "macs": self.macs, **_metrics(self.scores, bins)},
            "best_member": str(self.members[self.best][0].folder),
            "comparisons": [each.to_mapping() for each in self.comparisons],
        }


def compare(evaluated: Sequence[EvaluatedRun]) -> list[Comparison]:
    """Compare every pair of runs evaluated on the same images, by McNemar's test with Holm's correction."""
    pairs = [(one, other) for one, other in combinations(evaluated, 2) if one.images == other.images]
    return _corrected(
        [(str(one.record.folder), str(other.record.folder), one.scores, other.scores) for one, other in pairs]
    )


def ensemble_result(members: Sequence[tuple[RunRecord, Scores]]) -> EnsembleResult:
    """Average the predictions of runs and compare the ensemble with each member.

    Args:
        members: runs and their predictions on the same images, in the same order; at least two.

    Raises:
        InputError: fewer than two members, a run given twice, or members with different images or classes.
    """
    if len(members) < 2:
        raise InputError("members", [record.folder.name for record, _ in members], "must be at least two runs")
    require_distinct([record for record, _ in members])
    scores = average([each for _, each in members])
    pairs = [(ENSEMBLE, str(record.folder), scores, each) for record, each in members]
    return EnsembleResult(tuple(members), scores, tuple(_corrected(pairs)))


def require_distinct(records: Sequence[RunRecord]) -> None:
    """Raise an error if a run is given twice; a copy of a run folder is the same run.

    Raises:
        InputError: a run is given twice.
    """
    seen: dict[str, RunRecord] = {}
    for record in records:
        digest = record.identity.digest
        if digest in seen:
            raise InputError("run", str(record.folder), f"is given twice: it is the same run as {seen[digest].folder}")
        seen[digest] = record


def require_common_images(records: Sequence[RunRecord], part: Part) -> None:
    """Raise an error unless all runs have the same images of a part, so that their predictions can be averaged.

    Raises:
        InputError: a run has a different data set than the first or, for validation images, a different split:
            images that validate one run may then train the other.
    """
    first = records[0]
    for record in records:
        data, first_data = record.identity.data, first.identity.data
        if data.fingerprint != first_data.fingerprint:
            rule = f"was trained on a different data set than {first.folder.name}; use --on test and --data for a third"
            raise InputError("run", str(record.folder), rule)
        if part == "validation" and data.split_fingerprint != first_data.split_fingerprint:
            rule = f"has a different split than {first.folder.name}: images that validate one may train the other"
            raise InputError("run", str(record.folder), f"{rule}; use --on test")


def most_frequent_confusions(scores: Scores, names: Sequence[str], *, most: int) -> list[Confusion]:
    """Return the most frequent confusions in descending order; ties are in the order of the classes.

    Args:
        scores: predictions of a network.
        names: names of the classes.
        most: maximum number of confusions.
    """
    confusion = scores.confusion()
    totals = confusion.sum(axis=1).tolist()
    np.fill_diagonal(confusion, 0)
    order = np.argsort(-confusion, axis=None, kind="stable")[:most]
    return [
        Confusion(names[truth], names[predicted], count, count / totals[truth])
        for truth, predicted in (divmod(index, scores.num_classes) for index in order.tolist())
        if (count := int(confusion[truth, predicted]))
    ]


def _corrected(pairs: Sequence[tuple[str, str, Scores, Scores]]) -> list[Comparison]:
    outcomes = [compare_predictions(one.right, other.right) for _, _, one, other in pairs]
    adjusted = holm([outcome.mcnemar.p_value for outcome in outcomes])
    return [
        Comparison(first, second, outcome, p_value)
        for (first, second, _, _), outcome, p_value in zip(pairs, outcomes, adjusted, strict=True)
        if p_value is not None
    ]


def _run_fields(record: RunRecord) -> dict[str, Any]:
    identity, result = record.identity, record.result
    return {
        "run": record.folder.name,
        "folder": str(record.folder),
        "name": identity.spec.label,
        "params": result.params,
        "macs": result.macs,
        "recipe": describe_recipe(identity.recipe),
        "seed": identity.seed,
        "status": result.status,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
    }


def _metrics(scores: Scores, bins: int) -> dict[str, Any]:
    return {
        "accuracy": scores.accuracy,
        "balanced_accuracy": scores.balanced_accuracy,
        "correct": scores.correct,
        "images": scores.images,
        "interval": list(scores.interval),
        "loss": scores.loss,
        "ece": scores.calibration(bins).ece,
    }
