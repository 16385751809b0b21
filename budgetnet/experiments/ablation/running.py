"""Training of the variants of an ablation."""

from __future__ import annotations

from collections.abc import Sequence

from budgetnet.engines.batch import Batch
from budgetnet.engines.jobs import PlannedRun
from budgetnet.experiments.ablation.study import AblationStudy
from budgetnet.experiments.ablation.variants import Variant
from budgetnet.runs.records import RunRecord
from budgetnet.training.callbacks import Callback


def train_variants(
    study: AblationStudy, variants: Sequence[Variant], batch: Batch, callback: Callback
) -> dict[tuple[str, str], list[RunRecord]]:
    """Train every variant within the budget with every seed, and evaluate on the test set if the study requires it.

    Args:
        study: the ablation.
        variants: variants of the study, whose bases fit the budget.
        batch: folder, device and data of the runs.
        callback: called with the progress.

    Returns:
        The records of each variant in the order of the seeds, by the variant's key.

    Raises:
        RecordError: a run's folder is damaged.
    """
    runs = planned_runs(study, variants)
    records = batch.train(runs, callback)
    if study.judged_on == "test":
        by = f"ablate {study.name}".strip()
        count = len(runs) // len(study.seeds)
        records = batch.evaluate_on_test(records, by=by, reason=f"an ablation of {count} variants")
    return _by_variant(runs, records)


def finished_variants(
    study: AblationStudy, variants: Sequence[Variant], batch: Batch
) -> dict[tuple[str, str], list[RunRecord]]:
    """Read the complete runs of an ablation, without training or opening the test set.

    In a study that is evaluated on the test set, complete runs count only with a test result.

    Args:
        study: the ablation.
        variants: variants of the study.
        batch: folder, device and data of the runs.

    Returns:
        The records of each variant that has any, in the order of the seeds, by the variant's key.

    Raises:
        RecordError: a run's folder is damaged.
    """
    runs = planned_runs(study, variants)
    records = [batch.record(run) for run in runs]
    if study.judged_on == "test":
        records = [each if each and (each.test or each.result.status != "complete") else None for each in records]
    return _by_variant(runs, records)


def _by_variant(
    runs: Sequence[PlannedRun], records: Sequence[RunRecord | None]
) -> dict[tuple[str, str], list[RunRecord]]:
    found: dict[tuple[str, str], list[RunRecord]] = {}
    for run, record in zip(runs, records, strict=True):
        if record is not None:
            found.setdefault((run.spec.digest, run.recipe.digest), []).append(record)
    return found


def planned_runs(study: AblationStudy, variants: Sequence[Variant]) -> list[PlannedRun]:
    """Return the trainings of an ablation: every variant within the budget with every seed, equal ones once.

    They are ordered by seed, so that an interrupted study compares all variants on the finished seeds.
    """
    fitting = {variant.key: variant for variant in variants if variant.fits}.values()
    return [PlannedRun(spec=each.spec, recipe=each.recipe, seed=seed) for seed in study.seeds for each in fitting]
