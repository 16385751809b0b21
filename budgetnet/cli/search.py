"""The verbs that search, and that read what searches found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from budgetnet.cli.options import (
    Data,
    Device,
    Epochs,
    Json,
    MaxActivations,
    MaxMacs,
    MaxParams,
    Out,
    RecipeOption,
    Seed,
    Storage,
    TrainSize,
    ValidationSize,
    print_json,
    read_budget,
    read_recipe,
    read_sizes,
)
from budgetnet.fields import parse_count

if TYPE_CHECKING:
    import optuna


def search(
    max_params: MaxParams = "5M",
    max_macs: MaxMacs = None,
    max_activations: MaxActivations = None,
    data: Data = "digits",
    trials: Annotated[
        str, typer.Option("--trials", metavar="N", help="Trained candidates that the study shall have, in all.")
    ] = "6",
    epochs: Epochs = None,
    recipe: RecipeOption = None,
    space: Annotated[Path | None, typer.Option("--space", help="A search space as a YAML or JSON file.")] = None,
    study: Annotated[
        str | None, typer.Option("--study", help="Name of the study; the same question finds its own if left out.")
    ] = None,
    storage: Storage = None,
    seed: Seed = 0,
    out: Out = Path("runs"),
    device: Device = "auto",
    train_size: TrainSize = None,
    validation_size: ValidationSize = None,
    as_json: Json = False,
) -> None:
    """Search for the best network within a budget; the same command goes on where it stopped."""
    budget = read_budget(max_params, max_macs, max_activations)
    how = read_recipe(recipe, data=data, epochs=epochs)
    wanted = parse_count(trials, field="--trials")
    sizes = read_sizes(train_size, validation_size)
    from budgetnet.cli.progress import TerminalProgress, load_shown
    from budgetnet.environment import choose_device
    from budgetnet.search.driver import MAX_TURNED_AWAY, question, require_feasible
    from budgetnet.search.driver import search as run_search
    from budgetnet.search.study import default_storage, open_storage
    from budgetnet.space import SearchSpace
    from budgetnet.training_data import TrainingData

    candidates = SearchSpace() if space is None else SearchSpace.load(space)
    chosen = choose_device(device)
    prepared = TrainingData.prepare(load_shown(data), how, device=chosen, **sizes)
    settings = question(prepared, how, budget=budget, seed=seed, space=candidates)
    # Before the storage is opened, so that a budget that nothing fits leaves no files.
    require_feasible(settings, prepared)
    kept = open_storage(storage or default_storage(out), create=True)
    try:
        with TerminalProgress(candidates=wanted, epochs=how.epochs) as progress:
            outcome = run_search(
                settings,
                prepared,
                study_name=study or settings.default_name,
                storage=kept,
                out=out,
                trials=wanted,
                observer=progress,
            )
    except KeyboardInterrupt:
        # Said when the bars have gone, which would write over it.
        typer.echo("interrupted: nothing is lost, the same command goes on where it stopped", err=True)
        raise
    if outcome.exhausted:
        typer.echo(
            f"gave up at {outcome.trained} of {wanted} candidates: {MAX_TURNED_AWAY} proposals in a row were "
            "over budget, trained before, or too large for the device",
            err=True,
        )
    _print_leaderboard(outcome.study, out=out, as_json=as_json)


def leaderboard(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Name of the study; the last one worked on if left out.")
    ] = None,
    out: Out = Path("runs"),
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """The candidates of a study, ranked beside the published reference."""
    from budgetnet.search.study import default_storage, find_study, open_storage, storage_errors

    kept = open_storage(storage or default_storage(out), create=False)
    with storage_errors(str(kept.url)):
        _print_leaderboard(find_study(kept, study), out=out, as_json=as_json)


def _print_leaderboard(study: optuna.Study, *, out: Path, as_json: bool) -> None:
    from budgetnet.leaderboard import rank
    from budgetnet.search.study import candidates, study_settings, tally

    settings = study_settings(study)
    comparable = settings.data.is_original_cifar10
    rows = rank(candidates(study), comparable=comparable)
    counts = tally(study)
    if as_json:
        facts: dict[str, Any] = {"study": study.study_name, "budget": settings.budget.to_mapping()}
        facts |= {"data": settings.data.to_mapping(), "recipe": settings.recipe.to_mapping(), "seed": settings.seed}
        print_json({**facts, "comparable": comparable, **counts, "rows": [row.to_mapping() for row in rows]})
        return
    from budgetnet.cli.tables import console, leaderboard_table

    limits = ", ".join(f"{value:,} {key[4:]}" for key, value in settings.budget.to_mapping().items() if value)
    output = console()
    title = f"{study.study_name}: at most {limits or 'anything'}"
    output.print(leaderboard_table(rows, title=title, width=output.width))
    typer.echo(
        f"{counts['trained']} trained, {counts['over_budget']} turned away over budget before any training, "
        f"{counts['repeated']} answered from the record, {counts['no_result']} without a result"
    )
    typer.echo(
        f"data: {settings.data.name}: {settings.data.provenance}; {settings.data.train_images:,} training and "
        f"{settings.data.validation_images:,} validation images; recipe {settings.recipe.name or 'from a file'}, "
        f"{settings.recipe.epochs} epochs, seed {settings.seed}"
    )
    typer.echo(
        "accuracy: on the validation images that also chose each run's best epoch, one seed each; published: on 10,000 "
        "test images; "
        + (
            "beyond noise: at 95 % for all candidates together"
            if comparable
            else "not comparable, as these are not the original CIFAR-10 images"
        )
    )
    best = next((row.run for row in rows if row.rank == 1), None)
    if best:
        typer.echo(f"best run: {out / best}")
