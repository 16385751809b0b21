"""Leaderboard: candidates ranked against the published reference, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.model.zoo import get
from budgetnet.statistics.intervals import Interval, correct_count, difference_interval, exceeds_noise, wilson_interval
from budgetnet.study.trials import Trial

if TYPE_CHECKING:
    from budgetnet.model.published import PublishedResult
    from budgetnet.runs.records import RunRecord


class Candidate(NamedTuple):
    """A trained network and its validation result."""

    name: str
    architecture: str
    params: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates for one image."""
    correct: int
    """Validation images classified correctly."""
    images: int
    """Validation images."""
    run: str
    """Name of the run's folder."""
    seed: int
    train_flops: int | None = None
    """Floating-point operations of its training."""


def candidates(trials: Iterable[Trial]) -> list[Candidate]:
    """Return the complete trials as candidates of the leaderboard."""
    return [
        Candidate(
            name=trial.name,
            architecture=trial.architecture,
            params=trial.params,
            macs=trial.macs,
            correct=trial.correct,
            images=trial.images,
            run=trial.run or "",
            seed=trial.seed or 0,
            train_flops=trial.train_flops,
        )
        for trial in trials
        if trial.outcome == "complete" and trial.correct is not None and trial.images
    ]


def run_candidates(records: Iterable[RunRecord]) -> list[Candidate]:
    """Return the candidates of run records, each with a validation result."""
    return [
        Candidate(
            name=record.folder.name,
            architecture=record.identity.spec.label,
            params=record.result.params,
            macs=record.result.macs,
            correct=record.result.validation_correct or 0,
            images=record.result.validation_images,
            run=record.folder.name,
            seed=record.identity.seed,
            train_flops=record.train_flops,
        )
        for record in records
    ]


class LeaderboardRow(NamedTuple):
    """Row of the leaderboard."""

    rank: int | None
    """From 1; none for the published row, which was not trained here."""
    name: str
    architecture: str
    params: int
    macs: int
    accuracy: float
    """Share of images classified correctly: of validation images, and of test images in the published row."""
    interval: Interval
    """95 % Wilson interval of the accuracy."""
    images: int
    """Number of images that the accuracy is measured on."""
    gap: float
    """Accuracy less the published one, as a share."""
    gap_interval: Interval
    """Newcombe interval of the gap, wide enough that all candidates' intervals hold together at 95 % (Šidák 1967)."""
    comparable: bool
    """Whether the candidate was validated on original CIFAR-10, like the reference."""
    verdict: str
    """Verdict on the gap: beyond or within noise, or not comparable."""
    is_reference: bool = False
    run: str | None = None
    seed: int | None = None
    train_flops: int | None = None
    """Floating-point operations of the training, see `budgetnet.runs.training_cost`; none for the published row."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the row as plain data; accuracies and gaps as shares from 0 to 1."""
        mapping = self._asdict()
        mapping["interval"], mapping["gap_interval"] = list(self.interval), list(self.gap_interval)
        mapping["exceeds_noise"] = self.exceeds_noise
        return mapping

    @property
    def exceeds_noise(self) -> bool | None:
        """Whether the gap's interval excludes zero; None if the row is not comparable or is the reference."""
        return exceeds_noise(self.gap_interval) if self.comparable and not self.is_reference else None


NOT_COMPARABLE = "not comparable"


def rank(
    candidates: Sequence[Candidate],
    *,
    comparable: bool,
    among: int | None = None,
    reference: PublishedResult | None = None,
) -> list[LeaderboardRow]:
    """Rank candidates by validation accuracy, the one with fewer parameters first among equals.

    The best of many candidates is overestimated by selection, so the intervals of the gaps are corrected for the number
    of candidates, and "beyond noise" is valid for the first row. They are not corrected for the choice of each run's
    best epoch on the same images.

    The published row is ranked by its accuracy when the data are original CIFAR-10, and is last otherwise.

    Args:
        candidates: trained candidates.
        comparable: whether they were validated on original CIFAR-10.
        among: number of trained candidates that these were selected from, pruned ones included. Default: these alone.
        reference: published result. Default: the paper's final network.

    Raises:
        InputError: the published result has no known layout or number of images.
    """
    # Imported here because most tables that import this module show no published result.
    from budgetnet.model import published

    reference = reference or published.reference()
    images, correct = reference.known_images, correct_count(reference.accuracy, reference.known_images)
    confidence = 0.95 ** (1 / max(1, len(candidates), among or 0))
    ordered = sorted(candidates, key=lambda item: (-item.correct / item.images, item.params, item.name))
    rows = []
    for position, item in enumerate(ordered, 1):
        gap_interval = difference_interval(item.correct, item.images, correct, images, confidence=confidence)
        row = LeaderboardRow(
            rank=position,
            name=item.name,
            architecture=item.architecture,
            params=item.params,
            macs=item.macs,
            accuracy=item.correct / item.images,
            interval=wilson_interval(item.correct, item.images),
            images=item.images,
            gap=item.correct / item.images - reference.accuracy,
            gap_interval=gap_interval,
            comparable=comparable,
            verdict=_verdict(gap_interval) if comparable else NOT_COMPARABLE,
            run=item.run,
            seed=item.seed,
            train_flops=item.train_flops,
        )
        rows.append(row)
    place = len(rows)
    if comparable:
        place = sum(row.accuracy > reference.accuracy for row in rows)
    rows.insert(place, _published_row(reference, correct, comparable=comparable))
    return rows


def _verdict(gap_interval: Interval) -> str:
    return "beyond noise" if exceeds_noise(gap_interval) else "within noise"


def _published_row(reference: PublishedResult, correct: int, *, comparable: bool) -> LeaderboardRow:
    spec = get(reference.known_spec)
    return LeaderboardRow(
        rank=None,
        name="published",
        architecture=spec.label,
        params=spec.params,
        macs=spec.macs,
        accuracy=reference.accuracy,
        interval=wilson_interval(correct, reference.known_images),
        images=reference.known_images,
        gap=0.0,
        gap_interval=Interval(0.0, 0.0),
        comparable=comparable,
        verdict="published" if comparable else NOT_COMPARABLE,
        is_reference=True,
    )
