"""The paper's ladder of ever better networks: its rungs in order, and what each step up is worth here and there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from budgetnet.experiments.reproduction.rows import RunRow, interval_of, run_rows
from budgetnet.experiments.reproduction.verdict import Verdict, verdict
from budgetnet.model.published import PublishedResult, results
from budgetnet.runs.records import RunRecord
from budgetnet.statistics import Difference, holm, paired_difference
from budgetnet.statistics.intervals import Interval


def rungs() -> list[PublishedResult]:
    """The paper's networks from the lowest rung to the highest."""
    return [result for result in results().values() if result.rung is not None]


class Step(NamedTuple):
    """From one rung to the next, as shares."""

    published: float
    """Change of the published accuracies."""
    difference: Difference
    """Change here, seed by seed."""
    p_value: float | None
    """Of the change here, corrected for the number of steps (Holm); none for a single seed."""


class Rung(NamedTuple):
    """One network of the ladder."""

    published: PublishedResult
    params: int
    """Trainable parameters of the layout, counted."""
    n: int
    """Runs with a result."""
    test_accuracy: float
    """Mean over the seeds, as a share."""
    interval: Interval | None
    """Student's, over the seeds; none for a single one."""
    verdict: Verdict
    step: Step | None
    """From the rung below; none for the lowest, and where no seed came to a result on both."""


class LadderResult(NamedTuple):
    """Every rung, the lowest first."""

    rows: tuple[RunRow, ...]
    """Each run."""
    rungs: tuple[Rung, ...]

    @property
    def same_order(self) -> bool:
        """Whether each rung's mean is above that of the one below, as the paper has it."""
        accuracies = [rung.test_accuracy for rung in self.rungs]
        return all(lower < higher for lower, higher in pairwise(accuracies))

    def to_mapping(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "reproduction": "ladder",
            "same_order": self.same_order,
            "rungs": [_rung_mapping(rung) for rung in self.rungs],
            "runs": [row.to_mapping() for row in self.rows],
        }


def _rung_mapping(rung: Rung) -> dict[str, Any]:
    mapping: dict[str, Any] = {
        "name": rung.published.name,
        "stated_params": rung.published.params,
        "params": rung.params,
        "stated_accuracy": rung.published.accuracy,
        "stated_accuracy_is_approximate": rung.published.accuracy_is_approximate,
        "n": rung.n,
        "test_accuracy": rung.test_accuracy,
        "interval": rung.interval and list(rung.interval),
        "verdict": rung.verdict.to_mapping(),
    }
    if rung.step is not None:
        difference = rung.step.difference
        mapping["step"] = {
            "published": rung.step.published,
            **difference._asdict(),
            "interval": difference.interval and list(difference.interval),
            "holm_p_value": rung.step.p_value,
        }
    return mapping


def ladder_result(records: Sequence[Sequence[RunRecord]], *, declared: bool) -> LadderResult:
    """What runs of the four networks say of the paper's ladder.

    Args:
        records: for each rung, the lowest first, a run for each seed, judged on the test set; the same seeds for all.
        declared: whether the user vouches for the images.

    Raises:
        BudgetnetError: a rung came to no result.
    """
    published = rungs()
    verdicts = [verdict(runs, result, declared=declared) for runs, result in zip(records, published, strict=True)]
    differences = [_step(lower, higher) for lower, higher in pairwise(records)]
    corrected = holm([difference.p_value if difference else None for difference in differences])
    found = []
    for place, (runs, result) in enumerate(zip(records, published, strict=True)):
        tests = [record.test.accuracy for record in runs if record.test]
        step = None
        difference = differences[place - 1] if place else None
        if difference is not None:
            step = Step(result.accuracy - published[place - 1].accuracy, difference, corrected[place - 1])
        params = runs[0].result.params
        found.append(Rung(result, params, len(tests), fmean(tests), interval_of(tests), verdicts[place], step))
    return LadderResult(run_rows(record for runs in records for record in runs), tuple(found))


def _step(lower: Sequence[RunRecord], higher: Sequence[RunRecord]) -> Difference | None:
    """The change of test accuracy, over the seeds that came to a result on both rungs; none where none did."""
    pairs = [(one.test, other.test) for one, other in zip(higher, lower, strict=True)]
    both = [(one.accuracy, other.accuracy) for one, other in pairs if one and other]
    return paired_difference([one for one, _ in both], [other for _, other in both]) if both else None
