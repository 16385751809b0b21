"""The ``budgetnet train`` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.api.inputs import make_trackers, network_of
from budgetnet.cli.options import (
    Data,
    Device,
    Epochs,
    Json,
    Out,
    Quiet,
    RecipeOption,
    Seed,
    SpecArgument,
    Threads,
    Track,
    TrainSize,
    ValidationSize,
    Verbose,
    print_json,
)
from budgetnet.cli.parsing import (
    check_names,
    compiling,
    read_recipe,
    read_sizes,
    read_threads,
    read_verbosity,
    set_threads_shown,
)
from budgetnet.cli.termination import interruption
from budgetnet.common.errors import BudgetnetError
from budgetnet.common.files import require_folder
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import LEAKAGE_WARNING, Recipe, unfinished_cycle

if TYPE_CHECKING:
    from budgetnet.api.training import Training
    from budgetnet.runs.records import RunRecord


def train(
    spec: SpecArgument,
    recipe: RecipeOption = None,
    data: Data = "digits",
    epochs: Epochs = None,
    seed: Seed = 0,
    out: Out = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    train_size: TrainSize = None,
    validation_size: ValidationSize = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the training step with torch.compile. Takes minutes, so use it for long runs.",
        ),
    ] = False,
    replay: Annotated[
        bool, typer.Option(help="Whether to capture training steps as CUDA graphs, on devices that support them.")
    ] = True,
    track: Track = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Train one network; run the same command again to resume."""
    how = read_recipe(recipe, data=data, epochs=epochs)
    sizes = read_sizes(train_size, validation_size)
    require_folder(out, field="--out")
    wanted = read_threads(threads)
    verbosity = read_verbosity(quiet=quiet, verbose=verbose)
    trackers = make_trackers(track or (), out=out)
    network = network_of(spec)
    check_names(data=data, device=device)
    from budgetnet.api.training import prepare

    ready = prepare(network, data=data, recipe=how, seed=seed, out=out, device=device, verbosity=verbosity, **sizes)
    set_threads_shown(wanted, ready.first_run)
    from budgetnet.training.progress import chosen_verbosity

    is_quiet = chosen_verbosity(verbosity) == "quiet"
    if ready.folder.finished and not is_quiet:
        typer.echo("already trained: showing the stored result", err=True)
    if not is_quiet and (notice := unfinished_cycle(how)):
        typer.echo(notice, err=True)
    if not as_json:
        _announce_cost(ready.spec, how, images=ready.data.record.train_images)
        _announce_memory(ready)
    with interruption("run the same command to resume after the last finished epoch"), compiling(wanted=compiled):
        run = ready.run(compile=compiled, cuda_graphs=replay, callbacks=trackers, verbosity=verbosity)
    _report(run.record, as_json=as_json)


def _report(record: RunRecord, *, as_json: bool) -> None:
    """Print the result of a training run.

    Raises:
        BudgetnetError: the run has no result.
    """
    from budgetnet.common.formatting import count_of, duration, short_petaflops
    from budgetnet.statistics.intervals import format_with_interval, wilson_interval

    identity, data = record.identity, record.identity.data
    name = identity.spec.label
    result = record.result
    if result.status != "complete" or result.validation_correct is None:
        raise BudgetnetError(f"{name}: training ended without a result: {result.reason} ({record.folder})")
    accuracy = result.validation_correct / result.validation_images
    interval = wilson_interval(result.validation_correct, result.validation_images)
    if as_json:
        summary = {"folder": str(record.folder), "name": name, "seed": identity.seed}
        summary["data"] = data.to_mapping()
        summary |= {"validation_accuracy": accuracy, "interval": list(interval), **result.to_mapping()}
        summary["train_flops"] = record.train_flops
        summary["leaks"] = identity.recipe.leaks
        print_json(summary)
        return
    typer.echo(
        f"{name}: {result.params:,} parameters, {result.macs:,} MACs, seed {identity.seed}, on {identity.device}"
    )
    typer.echo(f"data: {data.name}: {data.provenance}; {data.train_images:,} training images")
    images = result.validation_images
    typer.echo(
        f"validation accuracy {format_with_interval(accuracy, interval, images=images)} % (95 % interval, "
        f"{images:,} images), epoch {result.best_epoch} of {result.epochs} (lowest validation loss); "
        f"{result.reason}; test set not used"
    )
    typer.echo(
        f"trained for {short_petaflops(record.train_flops)} PFLOP, {count_of(result.epochs, 'epoch')}, "
        f"{duration(result.seconds)}"
    )
    if identity.recipe.leaks:
        typer.echo(LEAKAGE_WARNING)
    typer.echo(f"run folder: {record.folder}")


def _announce_memory(ready: Training) -> None:
    """Print the memory of a training step, and whether the device has less."""
    from budgetnet.common.byte_sizes import short_bytes
    from budgetnet.training.memory import memory_of, memory_on

    needed, available = memory_on(ready.device, ready.spec, ready.recipe), memory_of(ready.device)
    lacks = available is not None and available < needed.total
    warning = f"; only {short_bytes(available or 0)} are available, so choose a smaller batch_size" if lacks else ""
    typer.echo(f"memory of a training step: about {needed}{warning}")


def _announce_cost(spec: ModelSpec, recipe: Recipe, *, images: int) -> None:
    """Print the upper bound of the training cost and its formula."""
    from budgetnet.common.formatting import count_of, short_count, short_petaflops
    from budgetnet.runs.training_cost import FLOPS_PER_MAC, training_flops

    epochs = count_of(recipe.epochs, "epoch")
    formula = f"{FLOPS_PER_MAC} x {short_count(spec.macs)} MACs x {images:,} images x {epochs}"
    changes = [
        text
        for text, applies in (
            ("less for smaller images in the first epochs", recipe.resizing),
            ("less for images that are filtered out, and the proxy network's own", recipe.example_filter),
        )
        if applies
    ]
    cost = short_petaflops(training_flops(spec, recipe, images=images))
    typer.echo(f"cost: at most {cost} PFLOP: {', '.join([formula, *changes])}")
