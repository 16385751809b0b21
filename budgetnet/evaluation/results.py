"""What trained networks are worth: each for itself, one against another, and several as an ensemble.

All of it follows from what they said of the same images; nothing here computes what a network says.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np

from budgetnet.common.errors import InputError
from budgetnet.runs.metrics import Scores, average
from budgetnet.runs.recipe import LEAKING, Views
from budgetnet.runs.records import RunRecord
from budgetnet.statistics import PredictionComparison, compare_predictions, holm

Part = Literal["validation", "test"]
"""Which images of a data set."""

BINS = 15
"""Bins of the expected calibration error: as many as Guo et al. (2017) took."""

ENSEMBLE = "ensemble"
"""What the first of two networks is called where it is the ensemble of all members."""


class Evaluated(NamedTuple):
    """A run, and what its network said of some images."""

    record: RunRecord
    scores: Scores
    part: Part
    """Whether they are the images that the run was validated on, or those of a test set."""
    images: str
    """Identity of the images: two runs are compared where it is the same. Of a test set, its data set's fingerprint."""
    class_names: tuple[str, ...]
    """Name of each class."""
    views: Views
    """By which views of each image the network was judged, probabilities averaged."""
    kept: bool
    """Whether the answer was kept in the run folder, so that no test set was opened for it now."""

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
        """Whether the images belong to another data set than the one that the network was trained on."""
        return self.part == "test" and self.images != self.record.identity.data.fingerprint

    @property
    def remarks(self) -> list[str]:
        """What has to be known to read the accuracy, in words."""
        result, remarks = self.record.result, [LEAKING] if self.leaks else []
        if self.foreign:
            remarks.append(f"not the data set that it was trained on ({self.record.identity.data.name})")
        if result.status == "stopped":
            remarks.append(f"stopped behind epoch {result.epochs}, before its end: {result.reason}")
        as_trained = self.views == self.record.identity.recipe.views
        if self.part == "validation" and as_trained and result.validation_correct != self.scores.correct:
            remarks.append(
                f"in its training {result.validation_correct:,} of {result.validation_images:,} were right, by the "
                "arithmetic and the images of that time"
            )
        return remarks

    def to_mapping(self, *, bins: int = BINS) -> dict[str, Any]:
        """The result as plain data; accuracies and errors as shares from 0 to 1, the loss in nats.

        Args:
            bins: of the calibration.

        Raises:
            InputError: not a number of bins.
        """
        return {
            **_about(self.record),
            "on": self.part,
            "views": self.views,
            "kept": self.kept,
            "foreign": self.foreign,
            **_measures(self.scores, bins),
            "leaks": self.leaks,
            "remarks": self.remarks,
            "classes": [each._asdict() for each in self.scores.per_class(self.class_names)],
            "confusion": self.scores.confusion().tolist(),
            "calibration": [vars(each) for each in self.scores.calibration(bins).bins],
        }


class Comparison(NamedTuple):
    """Two networks on the same images, as one of several comparisons."""

    first: str
    """Folder of the run, or ``ensemble``."""
    second: str
    """Folder of the run."""
    outcome: PredictionComparison
    adjusted_p: float
    """McNemar's p-value with Holm's correction for all comparisons that were made together."""

    def to_mapping(self) -> dict[str, Any]:
        """The comparison as plain data; the difference, first less second, as a share."""
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
    """Images of one class that were said to be of another."""

    truth: str
    said: str
    images: int
    share: float
    """Of the images of the true class."""


class EnsembleResult(NamedTuple):
    """Networks whose probabilities are averaged, image by image."""

    members: tuple[tuple[RunRecord, Scores], ...]
    """Each network for itself."""
    scores: Scores
    """Of the ensemble."""
    comparisons: tuple[Comparison, ...]
    """The ensemble against each member, in their order; Holm's correction is for all of them."""

    @property
    def best(self) -> int:
        """Place of the member that is right most often; of equals the one of the lowest loss."""
        ranks = [(-scores.correct, scores.loss) for _, scores in self.members]
        return ranks.index(min(ranks))

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy of the members, as a share."""
        return fmean(scores.accuracy for _, scores in self.members)

    @property
    def mean_loss(self) -> float:
        """Mean loss of the members, in nats."""
        return fmean(scores.loss for _, scores in self.members)

    def mean_ece(self, bins: int = BINS) -> float:
        """Mean expected calibration error of the members."""
        return fmean(scores.calibration(bins).ece for _, scores in self.members)

    @property
    def params(self) -> int:
        """Trainable parameters of all members together."""
        return sum(record.result.params for record, _ in self.members)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all members together, for one image judged once by each."""
        return sum(record.result.macs for record, _ in self.members)

    def to_mapping(self, *, bins: int = BINS) -> dict[str, Any]:
        """The result as plain data; accuracies and errors as shares from 0 to 1, the loss in nats.

        Args:
            bins: of the calibration errors.

        Raises:
            InputError: not a number of bins.
        """
        return {
            "members": [{**_about(record), **_measures(scores, bins)} for record, scores in self.members],
            "mean": {"accuracy": self.mean_accuracy, "loss": self.mean_loss, "ece": self.mean_ece(bins)},
            "ensemble": {"params": self.params, "macs": self.macs, **_measures(self.scores, bins)},
            "best_member": str(self.members[self.best][0].folder),
            "comparisons": [each.to_mapping() for each in self.comparisons],
        }


def compare(evaluated: Sequence[Evaluated]) -> list[Comparison]:
    """Every pair of runs that were judged on the same images, by McNemar's test with Holm's correction."""
    pairs = [(one, other) for one, other in combinations(evaluated, 2) if one.images == other.images]
    return _corrected(
        [(str(one.record.folder), str(other.record.folder), one.scores, other.scores) for one, other in pairs]
    )


def ensemble_result(members: Sequence[tuple[RunRecord, Scores]]) -> EnsembleResult:
    """The ensemble of some runs, and whether it is better than its members by more than noise.

    Args:
        members: runs, and what each said of the same images, in the same order; at least two.

    Raises:
        InputError: fewer than two members, a run that stands twice, or members of other images or classes.
    """
    if len(members) < 2:
        raise InputError("members", [record.folder.name for record, _ in members], "must be at least two runs")
    require_distinct([record for record, _ in members])
    scores = average([each for _, each in members])
    against = [(ENSEMBLE, str(record.folder), scores, each) for record, each in members]
    return EnsembleResult(tuple(members), scores, tuple(_corrected(against)))


def require_distinct(records: Sequence[RunRecord]) -> None:
    """Lets different runs pass; a copy of a run under another name is the same run.

    Raises:
        InputError: a run stands twice.
    """
    seen: dict[str, RunRecord] = {}
    for record in records:
        digest = record.identity.digest
        if digest in seen:
            raise InputError("run", str(record.folder), f"stands twice: it is the same run as {seen[digest].folder}")
        seen[digest] = record


def require_common_images(records: Sequence[RunRecord], part: Part) -> None:
    """Lets runs pass whose own images of that part are the same ones, so that they can be averaged on them.

    Raises:
        InputError: a run has another data set than the first, or, on validation images, another split of it: then one
            was trained on images that validate the other.
    """
    first = records[0]
    for record in records:
        ours, theirs = record.identity.data, first.identity.data
        if ours.fingerprint != theirs.fingerprint:
            rule = f"was trained on other data than {first.folder.name}; --on test with --data asks both about a third"
            raise InputError("run", str(record.folder), rule)
        if part == "validation" and ours.split_fingerprint != theirs.split_fingerprint:
            rule = (
                f"was split in another way than {first.folder.name}, so one may know images that validate the other; "
            )
            raise InputError("run", str(record.folder), f"{rule}--on test asks about images that neither has seen")


def most_frequent_confusions(scores: Scores, names: Sequence[str], *, most: int) -> list[Confusion]:
    """The confusions of most images, the most frequent first; of equally frequent ones the first class first.

    Args:
        scores: what a network said.
        names: of the classes.
        most: at most so many.
    """
    confusion = scores.confusion()
    totals = confusion.sum(axis=1).tolist()
    np.fill_diagonal(confusion, 0)
    order = np.argsort(-confusion, axis=None, kind="stable")[:most]
    return [
        Confusion(names[truth], names[said], count, count / totals[truth])
        for truth, said in (divmod(place, scores.num_classes) for place in order.tolist())
        if (count := int(confusion[truth, said]))
    ]


def _corrected(pairs: Sequence[tuple[str, str, Scores, Scores]]) -> list[Comparison]:
    outcomes = [compare_predictions(one.right, other.right) for _, _, one, other in pairs]
    adjusted = holm([outcome.mcnemar.p_value for outcome in outcomes])
    return [
        Comparison(first, second, outcome, p_value)
        for (first, second, _, _), outcome, p_value in zip(pairs, outcomes, adjusted, strict=True)
        if p_value is not None
    ]


def _about(record: RunRecord) -> dict[str, Any]:
    identity, result = record.identity, record.result
    return {
        "run": record.folder.name,
        "folder": str(record.folder),
        "name": identity.spec.label,
        "params": result.params,
        "macs": result.macs,
        "recipe": identity.recipe.name,
        "seed": identity.seed,
        "status": result.status,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
    }


def _measures(scores: Scores, bins: int) -> dict[str, Any]:
    return {
        "accuracy": scores.accuracy,
        "correct": scores.correct,
        "images": scores.images,
        "interval": list(scores.interval),
        "loss": scores.loss,
        "ece": scores.calibration(bins).ece,
    }
