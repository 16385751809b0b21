"""Finalists of a study and their results, read from the records of their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import optuna

from budgetnet.common.documents import Document
from budgetnet.common.errors import InputError, RecordError
from budgetnet.common.latencies import short_latency
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.statistics.intervals import (
    Interval,
    correct_count,
    exceeds_noise,
    gap_interval,
    mean_interval,
    wilson_interval,
)

FINALS_KEY = "budgetnet:finals"
"""User attribute of a study that holds its finals."""


class Finalist(Document):
    """A candidate that is trained with the final recipe."""

    trial: int
    """Number of its trial."""
    name: str
    """Name in tables: ``#12``, or the label of an enqueued network."""
    spec: ModelSpec
    """The network."""
    recipe: Recipe
    """Recipe of its runs."""
    enqueued: bool = False
    """Whether the user enqueued it."""
    runs: tuple[str, ...]
    """Names of its run folders, one per seed."""


class FinalistLatency(Document):
    """Time that a finalist takes on the device that networks are deployed on."""

    predicted_ms: float
    """Milliseconds, as predicted from the device's file."""
    error: float
    """Share of the time that 95 % of the predictions stay within."""
    measured_ms: float | None = None
    """Milliseconds of the whole network, if the search ended on the device itself."""

    def __str__(self) -> str:
        measured = "" if self.measured_ms is None else f", measured {short_latency(self.measured_ms)}"
        return f"{short_latency(self.predicted_ms)} ± {100 * self.error:.1f} %{measured}"


class Finals(Document):
    """Finalists of a study and the seeds of their runs."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    finalists: tuple[Finalist, ...]
    """The finalists, the best of the search first."""
    seeds: tuple[int, ...]
    """Seeds; each finalist is trained with each of them."""
    recipe: Recipe
    """Final recipe, without the values that the search sampled for a finalist."""
    latencies: tuple[FinalistLatency, ...] = ()
    """Latency of each finalist, where the search limits it."""


class FinalResult(NamedTuple):
    """A finalist and the records of its runs."""

    finalist: Finalist
    records: tuple[RunRecord, ...]
    """Its complete runs, in the order of the seeds."""
    latency: FinalistLatency | None = None
    """Its latency, where the search limits it."""
    missing: int = 0
    """Number of its runs that have not ended or are damaged."""

    @property
    def validation(self) -> list[float]:
        """Validation accuracy of each run at its best epoch, as shares."""
        return [record.result.validation_accuracy or 0.0 for record in self.records]

    @property
    def test(self) -> list[float]:
        """Test accuracy of each run that was evaluated on the test set, as shares."""
        return [record.test.accuracy for record in self.records if record.test]

    @property
    def validation_images(self) -> int | None:
        """Number of validation images of each run; None without a run."""
        return self.records[0].result.validation_images if self.records else None

    @property
    def test_images(self) -> int | None:
        """Number of test images; None without a test result."""
        return next((record.test.images for record in self.records if record.test), None)

    @property
    def train_flops(self) -> list[int]:
        """Floating-point operations of each run's training."""
        return [record.train_flops for record in self.records]

    @property
    def test_interval(self) -> Interval | None:
        """95 % interval of the mean test accuracy: Student's over the seeds, Wilson's for a single one."""
        return self.interval_at(0.95)

    def interval_at(self, confidence: float) -> Interval | None:
        """Return the interval of the mean test accuracy at a confidence level; None without test results."""
        tests = [record.test for record in self.records if record.test]
        # Equal accuracies have no standard deviation to make a Student interval from.
        if len(set(self.test)) > 1:
            low, high = mean_interval(self.test, confidence=confidence)
            return Interval(max(0.0, low), min(1.0, high))
        return wilson_interval(tests[0].correct, tests[0].images, confidence=confidence) if tests else None

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data; accuracies as shares from 0 to 1."""
        cost = self.finalist.spec.cost
        return {
            "name": self.finalist.name,
            "architecture": self.finalist.spec.label,
            "enqueued": self.finalist.enqueued,
            **cost._asdict(),
            "runs": list(self.finalist.runs),
            "results": len(self.records),
            "train_flops": self.train_flops,
            "validation": self.validation,
            "mean_validation": fmean(self.validation) if self.records else None,
            "test": self.test,
            "mean_test": fmean(self.test) if self.test else None,
            "test_interval": list(self.test_interval) if self.test_interval else None,
            **({} if self.latency is None else {"latency": self.latency.to_mapping()}),
        }


class FinalGap(NamedTuple):
    """Difference of a finalist's mean test accuracy to another result."""

    difference: float
    """As a share."""
    interval: Interval
    """Interval, wide enough that those of all finalists hold together at 95 % (Šidák 1967)."""
    compared_with: str
    """``published``, or the name of the finalist that it is the difference to."""

    @property
    def exceeds_noise(self) -> bool:
        """Whether the interval excludes zero."""
        return exceeds_noise(self.interval)


def gap_mapping(gap: FinalGap | None) -> dict[str, Any]:
    """Return a gap as plain data; differences as shares from -1 to 1."""
    return {
        "gap": gap and gap.difference,
        "gap_interval": gap and list(gap.interval),
        "compared_with": gap and gap.compared_with,
        "exceeds_noise": gap and gap.exceeds_noise,
    }


def final_gaps(results: Sequence[FinalResult], *, comparable: bool) -> list[FinalGap | None]:
    """Compare each finalist's mean test accuracy with the published one, or on other data with that of a finalist.

    Args:
        results: the finalists, the best first.
        comparable: whether the data are original CIFAR-10, like those of the published result.

    Returns:
        The gaps in the order of the finalists; None for one without test results, and for the one that others are
        compared with: the enqueued finalist, or else the best.
    """
    tested = [result for result in results if result.test]
    count = len(tested) if comparable else len(tested) - 1
    confidence = 0.95 ** (1 / max(1, count))
    base = next((result for result in tested if result.finalist.enqueued), tested[0] if tested else None)
    other: Interval | None = None
    accuracy, against = 0.0, "published"
    if comparable:
        # Imported here because most tables that import this module show no published result.
        from budgetnet.model.published import reference

        accuracy, images = reference().accuracy, reference().known_images
        other = wilson_interval(correct_count(accuracy, images), images, confidence=confidence)
    elif base is not None:
        accuracy, other, against = fmean(base.test), base.interval_at(confidence), base.finalist.name

    def gap(result: FinalResult) -> FinalGap | None:
        own = result.interval_at(confidence)
        if own is None or other is None or (result is base and not comparable):
            return None
        mean = fmean(result.test)
        return FinalGap(mean - accuracy, gap_interval(mean, own, accuracy, other), against)

    return [gap(result) for result in results]


def best_record(results: Sequence[FinalResult]) -> RunRecord | None:
    """Return the run of the best finalist with the highest validation accuracy.

    None without a complete run, and until all finalists are trained, as the best is not known before. The test set is
    opened only then, so a run that is missing of a finalist with test results was damaged later.
    """
    if not results or not results[0].records or any(each.missing and not each.test for each in results):
        return None
    return max(results[0].records, key=lambda record: record.result.validation_accuracy or 0.0)


def store_finals(study: optuna.Study, finals: Finals) -> None:
    """Store the finals with the study."""
    study.set_user_attr(FINALS_KEY, finals.to_mapping())


def load_finals(study: optuna.Study) -> Finals | None:
    """Return the stored finals of a study, or None.

    Raises:
        RecordError: they were written by another version.
    """
    mapping = study.user_attrs.get(FINALS_KEY)
    if mapping is None:
        return None
    try:
        return Finals.from_mapping(mapping)
    except InputError as error:
        rule = f"its finals cannot be read by this version of budgetnet: {error.field} {error.rule}"
        raise RecordError("study", study.study_name, rule) from None


def read_results(finals: Finals, out: Path) -> list[FinalResult]:
    """Return the results of the finalists from their records, the best mean validation accuracy first.

    Args:
        finals: finals of the study.
        out: folder of run folders.

    Raises:
        RecordError: a run folder is damaged.
    """

    def read(path: Path) -> RunRecord | None:
        folder = RunFolder(path)
        return folder.load(weights=False) if folder.finished else None

    return results_of(finals, out, read)


def readable_results(finals: Finals | None, out: Path) -> list[FinalResult]:
    """Return the results as `read_results` does, without damaged runs; none without finals."""

    def read(path: Path) -> RunRecord | None:
        with suppress(RecordError):
            return RunFolder(path).load(weights=False)
        return None

    return [] if finals is None else results_of(finals, out, read)


def results_of(finals: Finals, out: Path, read: Callable[[Path], RunRecord | None]) -> list[FinalResult]:
    """Return the results of the finalists, the best mean validation accuracy first.

    Args:
        finals: finals of the study.
        out: folder of run folders.
        read: returns the record of a run folder, or None for a run to leave out.
    """
    results = []
    latencies = finals.latencies or (None,) * len(finals.finalists)
    for finalist, latency in zip(finals.finalists, latencies, strict=True):
        records = [record for name in finalist.runs if (record := read(out / name)) is not None]
        complete = tuple(each for each in records if each.result.status == "complete")
        results.append(FinalResult(finalist, complete, latency, missing=len(finalist.runs) - len(records)))
    return sorted(
        results, key=lambda each: (-fmean(each.validation) if each.records else 0.0, each.finalist.spec.params)
    )
