"""Reproduction of the paper's ladder of networks: rungs in order and the differences between them."""

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
    """Return the paper's networks, the lowest rung first."""
    return [result for result in results().values() if result.rung is not None]


class Step(NamedTuple):
    """Difference between two successive rungs, as shares."""

    published: float
    """Difference of the published accuracies."""
    difference: Difference
    """Paired difference of the runs' test accuracies."""
    p_value: float | None
    """P-value of the difference, corrected for the number of steps (Holm); None for a single seed."""


class Rung(NamedTuple):
    """A network of the ladder."""

    published: PublishedResult
    params: int
    """Trainable parameters of the layout, counted."""
    n: int
    """Runs with a result."""
    test_accuracy: float
    """Mean over the seeds, as a share."""
    interval: Interval | None
    """Student's interval over the seeds; None for a single one."""
    verdict: Verdict
    step: Step | None
    """Step from the rung below; None for the lowest, and without a seed with results of both."""


class LadderResult(NamedTuple):
    """Results of the ladder, the lowest rung first."""

    rows: tuple[RunRow, ...]
    """Each run."""
    rungs: tuple[Rung, ...]

    @property
    def same_order(self) -> bool:
        """Whether each rung's mean is above that of the one below, as in the paper."""
        accuracies = [rung.test_accuracy for rung in self.rungs]
        return all(lower < higher for lower, higher in pairwise(accuracies))

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data."""
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
    """Compute the results of the ladder from runs of its networks.

    Args:
        records: for each rung, the lowest first, one run per seed with test results; the same seeds for all.
        declared: whether the user declares the images to be CIFAR-10.

    Raises:
        BudgetnetError: a rung has no test result.
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
    """Return the paired difference of test accuracies over the seeds with results of both rungs, or None."""
    pairs = [(one.test, other.test) for one, other in zip(higher, lower, strict=True)]
    both = [(one.accuracy, other.accuracy) for one, other in pairs if one and other]
    return paired_difference([one for one, _ in both], [other for _, other in both]) if both else None
