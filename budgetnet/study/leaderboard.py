"""Leaderboard: ranked candidates, compared with the published result or with a baseline, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.model.zoo import get
from budgetnet.statistics.intervals import (
    Interval,
    correct_count,
    difference_interval,
    exceeds_noise,
    points,
    wilson_interval,
)
from budgetnet.study.objectives import CostName
from budgetnet.study.trials import Trial, front

if TYPE_CHECKING:
    from budgetnet.model.published import PublishedResult
    from budgetnet.runs.records import RunRecord


class Candidate(NamedTuple):
    """A trained network and its validation result."""

    name: str
    architecture: str
    params: int
    """Parameters, frozen ones included."""
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
    enqueued: bool = False
    """Whether the user enqueued it in a search."""
    on_front: bool | None = None
    """Whether it is on the Pareto front of accuracy and costs; None if accuracy is the only objective."""
    needs: Mapping[str, float] = MappingProxyType({})
    """What the deployed network needs of each limit on it that the study has."""


def rows_needs(rows: Iterable[LeaderboardRow]) -> list[str]:
    """Return the limits of the deployed network that rows have numbers of."""
    return list(dict.fromkeys(name for row in rows for name in row.needs))


def candidates(trials: Sequence[Trial], *, costs: Sequence[CostName] = ()) -> list[Candidate]:
    """Return the complete trials as candidates of the leaderboard.

    Args:
        trials: trials of one study.
        costs: costs that the study minimises beside accuracy.
    """
    unbeaten = {trial.number for trial in front(trials, costs=costs)} if costs else None
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
            enqueued=trial.enqueued,
            on_front=None if unbeaten is None else trial.number in unbeaten,
            needs=trial.needs,
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
    """Accuracy less that of the row in `compared_with`, as a share."""
    gap_interval: Interval
    """Newcombe interval of the gap, wide enough that all candidates' intervals hold together at 95 % (Šidák 1967)."""
    compared_with: str
    """Name of the row that the gap is to: ``published`` on original CIFAR-10, otherwise the best enqueued candidate, or
    the best of all."""
    is_reference: bool = False
    run: str | None = None
    seed: int | None = None
    train_flops: int | None = None
    """Floating-point operations of the training, see `budgetnet.runs.training_cost`; none for the published row."""
    on_front: bool | None = None
    """Whether it is on the Pareto front of accuracy and costs; None if accuracy is the only objective of its search."""
    needs: Mapping[str, float] = MappingProxyType({})
    """What the deployed network needs of each limit on it that the study has; nothing for the published row."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the row as plain data; accuracies and gaps as shares from 0 to 1."""
        mapping = self._asdict()
        mapping["interval"], mapping["gap_interval"] = list(self.interval), list(self.gap_interval)
        mapping |= mapping.pop("needs")
        mapping["exceeds_noise"] = self.exceeds_noise
        return mapping

    @property
    def exceeds_noise(self) -> bool | None:
        """Whether the gap's interval excludes zero.

        None for the row that others are compared with, and for gaps to the published result: that is a test accuracy,
        and this one is on validation images, which also selected the network.
        """
        if self.compared_with in (PUBLISHED, self.name):
            return None
        return exceeds_noise(self.gap_interval)


def gap_text(row: LeaderboardRow, *, with_interval: bool = True) -> str:
    """Return a row's gap in points; empty for the row that others are compared with."""
    return "" if row.compared_with == row.name else points(row.gap, row.gap_interval if with_interval else None)


def noise_word(exceeds: bool | None) -> str:
    """Return whether a difference is beyond noise as a word; empty where that is not tested."""
    return "" if exceeds is None else "yes" if exceeds else "no"


PUBLISHED = "published"
"""Name of the row of the published result."""


def rank(
    candidates: Sequence[Candidate],
    *,
    comparable: bool,
    among: int | None = None,
    reference: PublishedResult | None = None,
) -> list[LeaderboardRow]:
    """Rank candidates by validation accuracy.

    Among equals, those on a front come first, then those with fewer parameters; others stay in the order given.

    The best of many candidates is overestimated by selection, so the intervals of the gaps are corrected for the number
    of candidates. They are not corrected for the choice of each run's best epoch on the same images. Candidates of a
    study are evaluated on the same images, for which the intervals are conservative.

    The published row is ranked by its accuracy where the data are original CIFAR-10, and is omitted elsewhere.

    Args:
        candidates: trained candidates.
        comparable: whether the data are original CIFAR-10, like those of the published result.
        among: number of trained candidates that these were selected from, pruned ones included. Default: these alone.
        reference: published result. Default: the paper's final network.

    Raises:
        InputError: the published result has no known layout or number of images.
    """
    ordered = sorted(candidates, key=_rank_key)
    if comparable:
        # Imported here because most tables that import this module show no published result.
        from budgetnet.model import published

        known = reference or published.reference()
        images = known.known_images
        base = _Base(PUBLISHED, correct_count(known.accuracy, images), images, known.accuracy)
    elif ordered:
        first = next((item for item in ordered if item.enqueued), ordered[0])
        base = _Base(first.name, first.correct, first.images, first.correct / first.images)
    else:
        return []
    confidence = 0.95 ** (1 / max(1, len(candidates), among or 0))
    rows = [_row(item, place, base, confidence=confidence) for place, item in enumerate(ordered, 1)]
    if comparable:
        rows.insert(sum(row.accuracy > base.accuracy for row in rows), _published_row(known, base.correct))
    return rows


def _rank_key(item: Candidate) -> tuple[float, bool, int]:
    return -item.correct / item.images, item.on_front is False, item.params


class _Base(NamedTuple):
    """What candidates are compared with."""

    name: str
    correct: int
    images: int
    accuracy: float


def _row(item: Candidate, place: int, base: _Base, *, confidence: float) -> LeaderboardRow:
    accuracy = item.correct / item.images
    gap = difference_interval(item.correct, item.images, base.correct, base.images, confidence=confidence)
    return LeaderboardRow(
        rank=place,
        name=item.name,
        architecture=item.architecture,
        params=item.params,
        macs=item.macs,
        accuracy=accuracy,
        interval=wilson_interval(item.correct, item.images),
        images=item.images,
        gap=accuracy - base.accuracy,
        gap_interval=Interval(0.0, 0.0) if item.name == base.name else gap,
        compared_with=base.name,
        run=item.run,
        seed=item.seed,
        train_flops=item.train_flops,
        on_front=item.on_front,
        needs=item.needs,
    )


def _published_row(reference: PublishedResult, correct: int) -> LeaderboardRow:
    spec = get(reference.known_spec)
    return LeaderboardRow(
        rank=None,
        name=PUBLISHED,
        architecture=spec.label,
        params=spec.params,
        macs=spec.macs,
        accuracy=reference.accuracy,
        interval=wilson_interval(correct, reference.known_images),
        images=reference.known_images,
        gap=0.0,
        gap_interval=Interval(0.0, 0.0),
        compared_with=PUBLISHED,
        is_reference=True,
    )
