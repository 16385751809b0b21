"""The verb that searches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

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
    Threads,
    Track,
    TrainSize,
    ValidationSize,
    one_of,
    read_budget,
    read_duration,
    read_recipe,
    read_sizes,
    read_space,
    read_spec,
    read_threads,
    read_trackers,
    set_threads_shown,
)
from budgetnet.common.documents import parse_count
from budgetnet.runs.recipe import require_sound

if TYPE_CHECKING:
    from budgetnet.study.finalists import FinalsWanted


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
    threads: Threads = None,
    workers: Annotated[
        str | None,
        typer.Option("--workers", metavar="N", help="Processes; left out: one on a CPU, --per-gpu on each GPU."),
    ] = None,
    per_gpu: Annotated[str, typer.Option("--per-gpu", metavar="K", help="Processes that share a GPU.")] = "1",
    train_size: TrainSize = None,
    validation_size: ValidationSize = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Search for the best network within a budget; the same command goes on where it stopped."""
    budget = read_budget(max_params, max_macs, max_activations)
    how = read_recipe(recipe, data=data, epochs=epochs, other="search")
    deadline = None if timeout is None else time.time() + read_duration(timeout, field="--timeout")
    wanted = parse_count(trials, field="--trials")
    finals = _read_finals(finalists, final_seeds, final_recipe, final_epochs, data=data)
    processes = None if workers is None else parse_count(workers, field="--workers")
    wanted_threads = read_threads(threads)
    sharing = parse_count(per_gpu, field="--per-gpu")
    sizes = read_sizes(train_size, validation_size)
    candidates = read_space(space)
    trackers = read_trackers(track, out=out)
    from budgetnet.cli.leaderboard import print_leaderboard
    from budgetnet.study.driver import MAX_TURNED_AWAY
    from budgetnet.study.request import arrange, finish, likely_run, run
    from budgetnet.study.settings import PrunerName, SamplerName
    from budgetnet.study.space import Sizing
    from budgetnet.study.storage import storage_errors
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.devices import choose_device
    from budgetnet.training.progress import TerminalProgress, load_shown
    from budgetnet.visualization.dashboard import annotate_shown

    ways: dict[str, Any] = {
        "sizing": cast(Sizing, one_of(sizing, get_args(Sizing), field="--sizing")),
        "sampler": cast(SamplerName, one_of(sampler, get_args(SamplerName), field="--sampler")),
        "pruner": cast(PrunerName, one_of(pruner, get_args(PrunerName), field="--pruner")),
        **sizes,
    }
    # A device that is not there is told before images are decoded for it.
    choose_device(device)
    dataset = load_shown(data)
    request = arrange(
        dataset,
        how,
        budget=budget,
        space=candidates,
        seed=seed,
        out=out,
        storage=storage,
        study_name=study,
        device=device,
        workers=processes,
        per_gpu=sharing,
        enqueue=[name if name == "zoo" else read_spec(name) for name in enqueue or ()],
        **ways,
    )
    set_threads_shown(wanted_threads, lambda: likely_run(request), processes=request.place.workers)
    with storage_errors(request.place.storage):
        try:
            with TerminalProgress(candidates=wanted) as progress:
                outcome = run(request, Callbacks([progress, *trackers]), trials=wanted, deadline=deadline)
            if finals.number and outcome.end != "time" and outcome.trained:
                with TerminalProgress() as progress:
                    finish(request, outcome, dataset, Callbacks([progress, *trackers]), wanted=finals)
            if trouble := annotate_shown(outcome.study, request.place.storage, out):
                typer.echo(trouble, err=True)
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
    from budgetnet.study.finalists import FinalsWanted

    return FinalsWanted(
        0 if count.strip() == "0" else parse_count(count, field="--finalists"),
        parse_count(seeds, field="--final-seeds"),
        how,
    )
