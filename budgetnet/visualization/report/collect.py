"""Collection of a report's data from a study's storage and run folders."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import optuna

from budgetnet.model.budget import Budget
from budgetnet.model.deployed.limits import DEPLOYED
from budgetnet.model.zoo import get
from budgetnet.runs.records import RunRecord
from budgetnet.study.commands import found_config
from budgetnet.study.damage import damaged_trials
from budgetnet.study.feature_effects import feature_effects
from budgetnet.study.finalists import Finalist, Finals, load_finals, results_of
from budgetnet.study.importance import parameter_importance
from budgetnet.study.leaderboard import LeaderboardRow, candidates, rank
from budgetnet.study.reading import read_trials
from budgetnet.study.settings import StudySettings
from budgetnet.study.storage import study_settings
from budgetnet.study.trials import Trial, count_outcomes, one_per_candidate
from budgetnet.study.winner import winner
from budgetnet.visualization.report.ablations import read_ablations
from budgetnet.visualization.report.commands import commands
from budgetnet.visualization.report.content import ExperimentReport, Learning, Report, Standing
from budgetnet.visualization.report.environments import read_environments
from budgetnet.visualization.report.rejected import is_ranked, rejections
from budgetnet.visualization.report.reproductions import read_reproduction
from budgetnet.visualization.report.run_reader import Reader
from budgetnet.visualization.report.winners import read_why


def collect(
    study: optuna.Study,
    *,
    out: Path,
    storage: str | None = None,
    ablations: Sequence[Path] = (),
    reproductions: Sequence[Path] = (),
) -> Report:
    """Collect the data of a report; the study may still be running.

    Nothing is trained, and the test set is not used. Damaged trials and damaged or missing run folders
    are omitted and listed.

    Args:
        study: the study.
        out: folder of its run folders.
        storage: URL of its storage. Default: the SQLite file in `out`.
        ablations: folders of ablations, see `budgetnet.visualization.report.ablations.read_ablations`.
        reproductions: folders of records, see `budgetnet.visualization.report.reproductions.read_reproduction`.

    Raises:
        InputError: an ablation's file is missing or invalid.
        RecordError: the study was not made by budgetnet or by a newer version, or a folder has no matching records.
    """
    settings, trials = study_settings(study), one_per_candidate(read_trials(study))
    reader = Reader()
    standings = _standings(trials, settings)
    finals = load_finals(study)
    results = None if finals is None else results_of(finals, out, lambda path: _read_begun(path, reader))
    best = winner([standing.row for standing in standings], results or [])
    best_record = None if best is None or not best.run else reader.read(out / best.run)
    learning = [
        Learning(f"Finalist {result.finalist.name}", result.records) for result in results or () if result.records
    ]
    first = next((standing.row for standing in standings if standing.row.rank == 1), None)
    first_record = None if first is None or not first.run else reader.read(out / first.run)
    if first is not None and first_record is not None:
        learning.append(Learning(f"Best candidate of the search: {first.name}", (first_record,)))
    runs = [trial.run for trial in trials if trial.run] + [run for each in _finalists(finals) for run in each.runs]
    where = read_environments(runs, out)
    options = (("--ablation", ablations), ("--reproduction", reproductions))
    experiments = collect_experiments(ablations=ablations, reproductions=reproductions)
    confusion = None if best_record is None else reader.confusion(best_record)
    config = found_config(settings, study.study_name, out=out, storage=storage)
    why = read_why(study.study_name, config, best, reader)
    shown = {each.result.study.digest for each in why.ablations} if why else set()
    damaged = [f"trial #{number}: {damage}" for number, damage in damaged_trials(study).items()]
    damaged += [f"{path.name}: {reason}" for path, reason in reader.unreadable.items()]
    return Report(
        study=study.study_name,
        settings=settings,
        written=datetime.now().astimezone(),
        trials=tuple(trials),
        counts=count_outcomes(trials),
        standings=tuple(standings),
        rejections=tuple(rejections(trials, settings.budget)),
        finals=None if results is None else tuple(results),
        final_seeds=() if finals is None else finals.seeds,
        learning=tuple(learning),
        best=best,
        best_spec=None if best_record is None else best_record.identity.spec,
        confusion=confusion,
        importance=parameter_importance(study),
        effects=tuple(feature_effects(study, settings)),
        why=why,
        ablations=tuple(each for each in experiments.ablations if each.result.study.digest not in shown),
        reproductions=experiments.reproductions,
        environments=where.environments,
        without_environment=where.unknown,
        commands=tuple(
            commands(
                study.study_name,
                settings,
                out=out,
                storage=storage,
                best=best,
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
        tuple(each for folder in ablations for each in read_ablations(folder, ablation_reader)),
        tuple(read_reproduction(folder, reproduction_reader) for folder in reproductions),
        tuple(
            f"{path}: {reason}"
            for reader in (ablation_reader, reproduction_reader)
            for path, reason in reader.unreadable.items()
        ),
    )


def _read_begun(path: Path, reader: Reader) -> RunRecord | None:
    """Return the record of a finalist's run; None if it has not begun, is unfinished or is damaged."""
    return reader.read(path) if path.is_dir() else None


def _standings(trials: Sequence[Trial], settings: StudySettings) -> list[Standing]:
    """Return the leaderboard; costs are checked against the budget again."""
    ranked = {trial.name: trial for trial in trials if is_ranked(trial, settings.budget)}
    among = sum(trial.trained for trial in trials)
    found = candidates(list(ranked.values()), costs=settings.config.costs)
    rows = rank(found, comparable=settings.data.is_original_cifar10, among=among)

    def standing(row: LeaderboardRow) -> Standing:
        if row.is_reference:
            return Standing(row, _share_of_reference(settings.budget), None)
        return Standing(row, ranked[row.name].budget_used, ranked[row.name].cycles)

    return [standing(row) for row in rows]


def _share_of_reference(budget: Budget) -> float:
    """Return the share that the published reference uses; of a latency, which only its device's file tells, nothing."""
    reference = get("reference")
    needs = {name: DEPLOYED[name].need(reference, budget) for name in budget.deployed if name != "latency_ms"}
    return budget.share_used(reference.cost, needs)


def _finalists(finals: Finals | None) -> tuple[Finalist, ...]:
    return () if finals is None else finals.finalists
