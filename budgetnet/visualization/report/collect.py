"""Collection of a report's data from a study's storage and run folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean

import optuna

from budgetnet.model.zoo import get
from budgetnet.study.finalists import Finalist, FinalResult, Finals, load_finals
from budgetnet.study.importance import parameter_importance
from budgetnet.study.leaderboard import LeaderboardRow, candidates, rank
from budgetnet.study.settings import StudySettings
from budgetnet.study.storage import read_trials, study_settings
from budgetnet.study.trials import Trial, count_outcomes
from budgetnet.visualization.report.ablations import read_ablation
from budgetnet.visualization.report.commands import commands
from budgetnet.visualization.report.content import ExperimentReport, Learning, Report, Standing
from budgetnet.visualization.report.environments import read_environments
from budgetnet.visualization.report.rejected import is_ranked, rejections
from budgetnet.visualization.report.reproductions import read_reproduction
from budgetnet.visualization.report.run_reader import Reader


def collect(
    study: optuna.Study,
    *,
    out: Path,
    storage: str | None = None,
    ablations: Sequence[Path] = (),
    reproductions: Sequence[Path] = (),
) -> Report:
    """Collect the data of a report; the study may still be running.

    Nothing is trained, and the test set is not used. Damaged or missing run folders are omitted and listed.

    Args:
        study: the study.
        out: folder of its run folders.
        storage: URL of its storage. Default: the SQLite file in `out`.
        ablations: folders of ablations, see `budgetnet.visualization.report.ablations.read_ablation`.
        reproductions: folders of records, see `budgetnet.visualization.report.reproductions.read_reproduction`.

    Raises:
        InputError: an ablation's file is missing or invalid.
        RecordError: the study was not made by budgetnet or by a newer version, or a folder has no matching records.
    """
    settings, trials = study_settings(study), read_trials(study)
    reader = Reader()
    standings = _standings(trials, settings)
    best = next((standing.row for standing in standings if standing.row.rank == 1), None)
    finals = load_finals(study)
    results = None if finals is None else _results(finals, out, reader)
    best_record = None if best is None or not best.run else reader.read(out / best.run)
    learning = [] if best is None or best_record is None else [Learning(f"Best candidate: {best.name}", (best_record,))]
    for result in results or ():
        if result.records:
            learning.append(Learning(f"Finalist {result.finalist.name}", result.records))
    runs = [trial.run for trial in trials if trial.run] + [run for each in _finalists(finals) for run in each.runs]
    where = read_environments(runs, out)
    damaged = [f"{path.name}: {reason}" for path, reason in reader.unreadable.items()]
    options = (("--ablation", ablations), ("--reproduction", reproductions))
    experiments = collect_experiments(ablations=ablations, reproductions=reproductions)
    return Report(
        study=study.study_name,
        settings=settings,
        written=datetime.now().astimezone(),
        trials=tuple(trials),
        counts=_counts(trials),
        standings=tuple(standings),
        rejections=tuple(rejections(trials, settings.budget)),
        finals=None if results is None else tuple(results),
        final_seeds=() if finals is None else finals.seeds,
        learning=tuple(learning),
        best_spec=None if best_record is None else best_record.identity.spec,
        importance=parameter_importance(study),
        ablations=experiments.ablations,
        reproductions=experiments.reproductions,
        environments=where.environments,
        without_environment=where.unknown,
        commands=tuple(
            commands(
                study.study_name,
                settings,
                out=out,
                storage=storage,
                best_run=None if best is None else best.run,
                shown=[word for option, folders in options for folder in folders for word in (option, str(folder))],
            )
        ),
        unreadable=(*damaged, *experiments.unreadable, *where.damaged),
    )


def collect_experiments(*, ablations: Sequence[Path], reproductions: Sequence[Path]) -> ExperimentReport:
    """Collect the data of a report without a search; arguments and errors as those of `collect`."""
    ablation_reader, reproduction_reader = Reader(), Reader()
    return ExperimentReport(
        datetime.now().astimezone(),
        tuple(read_ablation(folder, ablation_reader) for folder in ablations),
        tuple(read_reproduction(folder, reproduction_reader) for folder in reproductions),
        tuple(
            f"{path}: {reason}"
            for reader in (ablation_reader, reproduction_reader)
            for path, reason in reader.unreadable.items()
        ),
    )


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    outcomes = Counter(trial.outcome for trial in trials)
    others = {"interrupted": outcomes["interrupted"], "skipped": outcomes["skipped"]}
    seen = {"proposed": len(trials), "running": outcomes["running"], "complete": outcomes["complete"]}
    return {**count_outcomes(trials), **others, **seen}


def _standings(trials: Sequence[Trial], settings: StudySettings) -> list[Standing]:
    """Return the leaderboard; costs are checked against the budget again."""
    ranked = {trial.name: trial for trial in trials if is_ranked(trial, settings.budget)}
    among = sum(trial.trained for trial in trials)
    rows = rank(candidates(ranked.values()), comparable=settings.data.is_original_cifar10, among=among)

    def standing(row: LeaderboardRow) -> Standing:
        if row.is_reference:
            return Standing(row, settings.budget.share_used(get("reference").cost), None)
        return Standing(row, ranked[row.name].budget_used, ranked[row.name].cycles)

    return [standing(row) for row in rows]


def _finalists(finals: Finals | None) -> tuple[Finalist, ...]:
    return () if finals is None else finals.finalists


def _results(finals: Finals, out: Path, reader: Reader) -> list[FinalResult]:
    """Return the finalists' results as `read_results` does, without unreadable runs."""
    results = []
    for finalist in finals.finalists:
        records = [record for run in finalist.runs if (record := reader.read(out / run)) is not None]
        results.append(FinalResult(finalist, tuple(each for each in records if each.result.status == "complete")))
    return sorted(results, key=lambda each: -fmean(each.validation) if each.records else 0.0)
