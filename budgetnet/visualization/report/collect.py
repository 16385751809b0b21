"""A study's report as plain data, from its storage and its run folders; nothing is trained and no test set opened."""

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
from budgetnet.visualization.report.content import Learning, Report, Standing
from budgetnet.visualization.report.environments import surroundings
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
    """Everything that is known of a study; it may still be running, and have come to nothing yet.

    A run folder that is damaged or gone is left out, and the report says so.

    Args:
        study: the study.
        out: folder of its run folders.
        storage: URL of its storage, where that is not the file in that folder.
        ablations: folders of ablations, see `budgetnet.visualization.report.ablations.read_ablation`.
        reproductions: folders of records, see `budgetnet.visualization.report.reproductions.read_reproduction`.

    Raises:
        InputError: an ablation's file is missing or breaks a rule.
        RecordError: the study was made by something else or by a newer version, or a folder that was named has no
            records of what it should.
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
    where = surroundings(runs, out)
    damaged = [f"{path.name}: {reason}" for path, reason in reader.left_out.items()]
    asked = (("--ablation", ablations), ("--reproduction", reproductions))
    ablation_reader, reproduction_reader = Reader(), Reader()
    made = [read_ablation(folder, ablation_reader) for folder in ablations]
    reproduced = [read_reproduction(folder, reproduction_reader) for folder in reproductions]
    for other in (ablation_reader, reproduction_reader):
        damaged += [f"{path}: {reason}" for path, reason in other.left_out.items()]
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
        ablations=tuple(made),
        reproductions=tuple(reproduced),
        environments=where.environments,
        without_environment=where.unknown,
        commands=tuple(
            commands(
                study.study_name,
                settings,
                out=out,
                storage=storage,
                best_run=None if best is None else best.run,
                shown=[word for option, folders in asked for folder in folders for word in (option, str(folder))],
            )
        ),
        left_out=(*damaged, *where.damaged),
    )


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    outcomes = Counter(trial.outcome for trial in trials)
    others = {"interrupted": outcomes["interrupted"], "skipped": outcomes["skipped"]}
    seen = {"proposed": len(trials), "running": outcomes["running"], "complete": outcomes["complete"]}
    return {**count_outcomes(trials), **others, **seen}


def _standings(trials: Sequence[Trial], settings: StudySettings) -> list[Standing]:
    """The leaderboard. What is on it was counted again: no storage can put there what does not fit."""
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
    """As `read_results`, without those runs that cannot be read."""
    results = []
    for finalist in finals.finalists:
        records = [record for run in finalist.runs if (record := reader.read(out / run)) is not None]
        results.append(FinalResult(finalist, tuple(each for each in records if each.result.status == "complete")))
    return sorted(results, key=lambda each: -fmean(each.validation) if each.records else 0.0)
