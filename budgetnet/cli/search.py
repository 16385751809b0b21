"""The verb that searches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast, get_args

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
    Seed,
    Storage,
    TrainSize,
    ValidationSize,
    one_of,
    read_budget,
    read_duration,
    read_recipe,
    read_sizes,
    read_space,
    read_spec,
)
from budgetnet.errors import InputError
from budgetnet.fields import parse_count
from budgetnet.recipe import Recipe, require_sound
from budgetnet.spec import ModelSpec
from budgetnet.zoo import ENTRIES, get

if TYPE_CHECKING:
    from budgetnet.batch import PlannedRun
    from budgetnet.budget import Budget
    from budgetnet.progress import TerminalProgress
    from budgetnet.search.driver import Arrangement
    from budgetnet.training_data import TrainingData


class FinalsWanted(NamedTuple):
    """What is to become of the best candidates."""

    number: int
    """How many are trained in full."""
    seeds: int
    recipe: Recipe


def search(
    max_params: MaxParams = "5M",
    max_macs: MaxMacs = None,
    max_activations: MaxActivations = None,
    data: Data = "digits",
    trials: Annotated[
        str, typer.Option("--trials", metavar="N", help="Trained candidates that the study shall have, in all.")
    ] = "6",
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="Stop within a step after 90s, 30m, 1.5h ...")
    ] = None,
    space: Annotated[
        str, typer.Option("--space", metavar="SPACE", help="resnet, paper, or a YAML or JSON file.")
    ] = "resnet",
    sizing: Annotated[
        str,
        typer.Option(
            "--sizing",
            help="fit: solve each width for the budget. scale: for a drawn share of it. reject: draw widths.",
        ),
    ] = "fit",
    sampler: Annotated[str, typer.Option("--sampler", help="tpe, gp, nsga2 or random.")] = "tpe",
    pruner: Annotated[
        str, typer.Option("--pruner", help="Who goes on at restarts: asha, hyperband, median or none.")
    ] = "asha",
    enqueue: Annotated[
        list[str] | None,
        typer.Option(
            "--enqueue",
            metavar="SPEC",
            help="Train this network first; again for more. zoo: every named one that fits.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="RECIPE", help="As for train. Left out: digits for the digits, else search."),
    ] = None,
    epochs: Epochs = None,
    finalists: Annotated[
        str, typer.Option("--finalists", metavar="K", help="Train the best K in full, then open the test set for them.")
    ] = "0",
    final_seeds: Annotated[
        str, typer.Option("--final-seeds", metavar="S", help="Trainings of each finalist, each with its own seed.")
    ] = "3",
    final_recipe: Annotated[
        str | None,
        typer.Option("--final-recipe", metavar="RECIPE", help="Left out: digits for the digits, else modern."),
    ] = None,
    final_epochs: Annotated[
        str | None, typer.Option("--final-epochs", metavar="N", help="Epochs in place of the final recipe's.")
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", help="Name of the study; the same question finds its own if left out.")
    ] = None,
    storage: Storage = None,
    seed: Seed = 0,
    out: Out = Path("runs"),
    device: Device = "auto",
    workers: Annotated[
        str | None,
        typer.Option("--workers", metavar="N", help="Processes; left out: one on a CPU, --per-gpu on each GPU."),
    ] = None,
    per_gpu: Annotated[str, typer.Option("--per-gpu", metavar="K", help="Processes that share a GPU.")] = "1",
    train_size: TrainSize = None,
    validation_size: ValidationSize = None,
    as_json: Json = False,
) -> None:
    """Search for the best network within a budget; the same command goes on where it stopped."""
    budget = read_budget(max_params, max_macs, max_activations)
    how = read_recipe(recipe, data=data, epochs=epochs, other="search")
    deadline = None if timeout is None else time.time() + read_duration(timeout, field="--timeout")
    wanted = parse_count(trials, field="--trials")
    finals = _read_finals(finalists, final_seeds, final_recipe, final_epochs, data=data)
    processes = None if workers is None else parse_count(workers, field="--workers")
    sharing = parse_count(per_gpu, field="--per-gpu")
    sizes = read_sizes(train_size, validation_size)
    candidates = read_space(space)
    import torch

    from budgetnet.cli.leaderboard import print_leaderboard
    from budgetnet.environment import choose_device
    from budgetnet.progress import TerminalProgress, load_shown
    from budgetnet.search.crew import Crew
    from budgetnet.search.driver import MAX_TURNED_AWAY, Arrangement, Plan, question, require_feasible
    from budgetnet.search.driver import search as run_search
    from budgetnet.search.finals import hold_finals
    from budgetnet.search.settings import PrunerName, SamplerName
    from budgetnet.search.study import default_storage, open_storage, storage_errors
    from budgetnet.space import Sizing
    from budgetnet.training_data import TrainingData

    ways: dict[str, Any] = {
        "sizing": cast(Sizing, one_of(sizing, get_args(Sizing), field="--sizing")),
        "sampler": cast(SamplerName, one_of(sampler, get_args(SamplerName), field="--sampler")),
        "pruner": cast(PrunerName, one_of(pruner, get_args(PrunerName), field="--pruner")),
    }
    chosen = choose_device(device)
    count = processes or (torch.cuda.device_count() * sharing if chosen.type == "cuda" else 1)
    dataset = load_shown(data)
    # Several workers take the images to their devices themselves.
    where = chosen if count == 1 else torch.device("cpu")
    prepared = TrainingData.prepare(dataset, how, device=where, **sizes)
    settings = question(prepared, how, budget=budget, seed=seed, space=candidates, device=chosen, **ways)
    by_hand = _networks(list(enqueue or []), budget, prepared)
    # Before the storage is opened, so that a budget that nothing fits leaves no files.
    require_feasible(settings, prepared)
    kept = open_storage(storage or default_storage(out), create=True)
    place = Arrangement(settings, prepared, study or settings.default_name, kept, out, count)
    with storage_errors(kept):
        try:
            with TerminalProgress(candidates=wanted, epochs=how.epochs) as progress:
                plan = Plan(wanted, by_hand, deadline)
                outcome = Crew(place, progress).search(plan) if count > 1 else run_search(place, plan, progress)
            if finals.number and outcome.end != "time" and outcome.trained:
                with TerminalProgress(epochs=finals.recipe.epochs) as progress:
                    hold_finals(outcome.study, place, dataset, _trainer(place, progress), **finals._asdict())
        except KeyboardInterrupt:
            # Said when the bars have gone, which would write over it.
            typer.echo("interrupted: nothing is lost, the same command goes on where it stopped", err=True)
            raise
        if outcome.end == "exhausted":
            typer.echo(
                f"gave up at {outcome.trained} of {wanted} candidates: {MAX_TURNED_AWAY} proposals in a row were "
                "over budget, trained before, or too large for the device",
                err=True,
            )
        if outcome.end == "time":
            waiting = "; finalists wait for the last candidate" if finals.number else ""
            typer.echo(
                f"time is up at {outcome.trained} of {wanted} candidates: the same command goes on{waiting}", err=True
            )
        print_leaderboard(outcome.study, out=out, as_json=as_json)


def _read_finals(count: str, seeds: str, recipe: str | None, epochs: str | None, *, data: str) -> FinalsWanted:
    how = read_recipe(recipe, data=data, epochs=epochs, other="modern", field="--final-epochs")
    require_sound(how, field="--final-recipe")
    return FinalsWanted(
        0 if count.strip() == "0" else parse_count(count, field="--finalists"),
        parse_count(seeds, field="--final-seeds"),
        how,
    )


def _networks(names: list[str], budget: Budget, data: TrainingData) -> tuple[ModelSpec, ...]:
    """The networks to be trained first, at the data's image shape.

    Raises:
        InputError: no such network, or one that the images are too small for.
        OverBudgetError: one does not fit the budget.
    """
    networks: list[ModelSpec] = []
    for name in names:
        if name == "zoo":
            networks += _fitting_zoo(budget, data)
            continue
        network = data.adapt(read_spec(name))
        budget.check(network).require()
        networks.append(network)
    return tuple(networks)


def _fitting_zoo(budget: Budget, data: TrainingData) -> Iterator[ModelSpec]:
    for name in ENTRIES:
        with suppress(InputError):  # Made for larger images than these.
            network = data.adapt(get(name))
            if budget.check(network).fits:
                yield network


def _trainer(place: Arrangement, progress: TerminalProgress) -> Callable[[Sequence[PlannedRun]], object]:
    from budgetnet.batch import train_runs
    from budgetnet.search.crew import Crew

    if place.workers > 1:
        return Crew(place, progress).train
    return lambda runs: train_runs(runs, place.data, out=place.out, observer=progress)
