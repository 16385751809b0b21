"""The ``budgetnet leaderboard`` command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from budgetnet.cli.completion import completing
from budgetnet.cli.options import Json, Out, Storage, print_json
from budgetnet.common.errors import RecordError

if TYPE_CHECKING:
    import optuna

    from budgetnet.api.leaderboard import Leaderboard
    from budgetnet.runs.records import RunRecord
    from budgetnet.study.config import SearchConfig
    from budgetnet.study.finalists import FinalResult
    from budgetnet.study.leaderboard import LeaderboardRow
    from budgetnet.study.objectives import CostName
    from budgetnet.study.settings import StudySettings
    from budgetnet.study.trials import Trial


def leaderboard(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY | RUN...]",
            autocompletion=completing("[STUDY | RUN...]"),
            help="Name of a study, or run folders. Default: the most recent study.",
            show_default=False,
        ),
    ] = None,
    out: Out = Path("runs"),
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Rank the candidates and the finalists of a study, or runs, by validation accuracy."""
    from budgetnet.api.leaderboard import is_run, rank_runs

    if source and (len(source) > 1 or is_run(source[0])):
        _print_runs(*rank_runs(source, out=out, storage=storage), as_json=as_json)
        return
    from budgetnet.study.storage import default_storage, find_study, open_storage, require_no_folder, storage_errors

    try:
        kept = open_storage(storage or default_storage(out), create=False)
    except RecordError:
        # Where there are no studies, a folder is rather one of runs.
        require_no_folder(source[0] if source else None)
        raise
    with storage_errors(str(kept.url)):
        print_leaderboard(find_study(kept, source[0] if source else None), out=out, storage=storage, as_json=as_json)


def _print_runs(board: Leaderboard, records: Sequence[RunRecord], *, as_json: bool) -> None:
    """Print ranked runs."""
    data = records[0].identity.data
    comparable = data.is_original_cifar10
    if as_json:
        rows = [row.to_mapping() for row in board]
        print_json({"data": data.to_mapping(), "comparable": comparable, "rows": rows})
        return
    from budgetnet.cli.tables import console, leaderboard_table

    output = console()
    output.print(leaderboard_table(board, title=board.title, width=output.width))
    typer.echo(f"data: {data.name}: {data.provenance}; {data.validation_images:,} validation images")
    _explain_columns(board, output.width, comparable=comparable)


def _explain_columns(rows: Sequence[LeaderboardRow], width: int, *, comparable: bool) -> None:
    """Print what the columns of the leaderboard mean, as far as the terminal shows them."""
    from budgetnet.cli.tables import explain, is_wide

    images = "accuracy: on the validation images, which also selected each run's best epoch by its loss, one seed each"
    if not is_wide(width, rows):
        explain(f"{images}; wider terminals also show intervals, gaps and the cost of training")
        return
    rule = (
        "gap: difference to the published result, which is on 10,000 test images and so not tested"
        if comparable
        else f"gap: difference to {rows[0].compared_with} on the same images, tested at the 95 % level, corrected over "
        "all candidates"
    )
    explain(f"{images}; {rule}")


def _explain_search(counts: Mapping[str, int], settings: StudySettings, config: SearchConfig) -> None:
    """Print what became of the trials, and how they were proposed and trained."""
    from budgetnet.cli.tables import explain
    from budgetnet.common.formatting import count_of
    from budgetnet.runs.named_recipes import describe_recipe
    from budgetnet.study.space.named import describe_space
    from budgetnet.study.trials import outcome_text

    explain(outcome_text(counts))
    varied = f" (varies {', '.join(settings.space.recipe)})" if settings.space.recipe else ""
    explain(
        f"data: {settings.data.name}: {settings.data.provenance}; {settings.data.train_images:,} training and "
        f"{settings.data.validation_images:,} validation images; recipe {describe_recipe(settings.recipe)}, "
        f"{count_of(settings.recipe.epochs, 'epoch')}, seed {config.seed}; "
        f"space {describe_space(settings.space)}{varied}, {config.sizing}, {config.sampler}, {config.pruner}"
    )


def _print_finals(results: Sequence[FinalResult], *, comparable: bool, out: Path) -> None:
    """Print the finalists, and how they are ranked and compared."""
    from budgetnet.cli.tables import console, explain, finals_table, is_wide
    from budgetnet.runs.store import TEST_OPENINGS_FILE
    from budgetnet.study.finalists import final_gaps

    output = console()
    output.print(finals_table(results, comparable=comparable, width=output.width))
    against = next((gap.compared_with for gap in final_gaps(results, comparable=comparable) if gap), "the others")
    # Equal accuracies have no standard deviation to make Student's interval from.
    differing = [len(set(result.test)) > 1 for result in results if result.test]
    columns = "test: mean over seeds" if any(differing) else "test: on the test set"
    interval = "Student's t" if any(differing) else "Wilson's"
    if len(set(differing)) > 1:
        interval += ", or Wilson's where the seeds do not differ"
    if is_wide(output.width):
        columns = (
            f"PFLOP: mean per training run; {columns}, with its 95 % interval ({interval}); gap: of test accuracy to "
            f"{against}, beyond noise at the 95 % level or not, corrected over all finalists"
        )
    explain(
        f"ranked by mean validation accuracy; {columns}; uses of the test set are recorded in "
        f"{out / TEST_OPENINGS_FILE}"
    )


def _pruned_ahead(trials: Sequence[Trial]) -> int:
    """Return the number of pruned trials with a higher accuracy than every complete one; 0 if none is complete."""
    best = max((trial.accuracy or 0.0 for trial in trials if trial.outcome == "complete"), default=1.0)
    return sum(trial.outcome == "pruned" and (trial.accuracy or 0.0) > best for trial in trials)


def _print_front(trials: Sequence[Trial], costs: Sequence[CostName]) -> None:
    """Print the front of a study with several objectives."""
    if not costs:
        return
    from budgetnet.cli.tables import console, explain, front_table
    from budgetnet.study.objectives import COSTS
    from budgetnet.study.trials import front

    output = console()
    output.print(front_table(front(trials, costs=costs), costs=costs, width=output.width))
    words = " and ".join(COSTS[name].words for name in costs)
    explain(f"front: no other candidate is as accurate with no more {words}; of equal ones the first is shown")


def print_leaderboard(study: optuna.Study, *, out: Path, storage: str | None, as_json: bool) -> None:
    """Print a study's candidates, its finalists if there are any, and how they were trained and evaluated."""
    from budgetnet.common.config import command
    from budgetnet.study.commands import found_config
    from budgetnet.study.finalists import final_gaps, gap_mapping, load_finals, read_results
    from budgetnet.study.leaderboard import candidates, rank
    from budgetnet.study.reading import read_trials
    from budgetnet.study.storage import study_settings
    from budgetnet.study.trials import count_outcomes
    from budgetnet.study.winner import winner

    settings = study_settings(study)
    config = found_config(settings, study.study_name, out=out, storage=storage)
    comparable = settings.data.is_original_cifar10
    trials = read_trials(study)
    counts = count_outcomes(trials)
    rows = rank(candidates(trials, costs=config.costs), comparable=comparable, among=counts["trained"])
    finals = load_finals(study)
    results = read_results(finals, out) if finals else []
    best = winner(rows, results)
    if as_json:
        facts: dict[str, Any] = {"study": study.study_name, "budget": settings.budget.to_mapping()}
        facts |= {"data": settings.data.to_mapping(), "recipe": settings.recipe.to_mapping(), "seed": config.seed}
        facts |= {way: getattr(config, way) for way in ("objectives", "sizing", "sampler", "pruner")}
        facts["command"] = command(config)
        gaps = final_gaps(results, comparable=comparable)
        finalists = [{**result.to_mapping(), **gap_mapping(gap)} for result, gap in zip(results, gaps, strict=True)]
        facts |= {"best_run": None if best is None else str(out / best.run), "comparable": comparable}
        print_json({**facts, **counts, "rows": [row.to_mapping() for row in rows], "finals": finalists})
        return
    from budgetnet.cli.tables import console, explain, is_wide, leaderboard_table

    limits = settings.budget.in_words()
    output = console()
    title = f"{study.study_name}: {f'at most {limits}' if limits else 'no limit'}"
    output.print(leaderboard_table(rows, title=title, width=output.width))
    _explain_search(counts, settings, config)
    if ahead := _pruned_ahead(trials):
        explain(
            f"{ahead} of the pruned ones had a higher accuracy than the best complete one: "
            "`budgetnet trials --sort accuracy`"
        )
    if rows:
        _explain_columns(rows, output.width, comparable=comparable)
    if is_wide(output.width, rows):
        explain(
            "PFLOP: 1e15 floating-point operations of training, 6 x MACs x images x epochs, fewer with progressive "
            "resizing or example filtering; validation not counted"
        )
    _print_front(trials, config.costs)
    typer.echo(f"command: {command(config)}")
    if results:
        _print_finals(results, comparable=comparable, out=out)
    first = next((row.run for row in rows if row.rank == 1), None)
    if best and best.finalist:
        typer.echo(f"best run: {out / best.run} (finalist {best.name}, seed {best.seed})")
        if first:
            typer.echo(f"best run of the search: {out / first}")
    elif best:
        typer.echo(f"best run: {out / best.run}")
