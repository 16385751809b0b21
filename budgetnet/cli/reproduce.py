"""Verbs that reproduce what is published, and ``list``, which shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from budgetnet.cli.fields import Command
from budgetnet.cli.options import (
    Device,
    Epochs,
    Json,
    MaxParams,
    Out,
    Seed,
    Threads,
    Track,
    TrainSize,
    ValidationSize,
    one_of,
    print_json,
    read_budget,
    read_recipe,
    read_sizes,
    read_spec,
    read_threads,
    read_trackers,
    require_folder,
    set_threads_shown,
)
from budgetnet.common.documents import parse_count
from budgetnet.common.errors import InputError, OverBudgetError
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe

if TYPE_CHECKING:
    from budgetnet.runs.records import RunRecord

reproduce = typer.Typer(help="Published results, and what becomes of them here.", no_args_is_help=True)

PublishedData = Annotated[
    str,
    typer.Option("--data", metavar="DATA", help="cifar10, cifar10:PATH, digits, folder:PATH or arrays:PATH.npz."),
]
Declare = Annotated[
    str | None,
    typer.Option(
        "--declare", metavar="cifar10", help="Vouch for the images being CIFAR-10; the verdict then says that you did."
    ),
]
Seeds = Annotated[str, typer.Option("--seeds", metavar="S", help="Trainings of each network, one with each seed.")]
PublishedRecipe = Annotated[
    str, typer.Option("--recipe", metavar="RECIPE", help="paper, as-run, or another name or file.")
]


class _Group(NamedTuple):
    """Trainings that differ in their seeds alone."""

    spec: ModelSpec
    recipe: Recipe


class _Setting(NamedTuple):
    """Options that every reproduction has."""

    data: str
    declare: str | None
    seeds: str
    first_seed: int
    train_size: str | None
    validation_size: str | None
    out: Path
    device: str
    threads: str | None
    track: list[str] | None

    @property
    def declared(self) -> bool:
        """Whether the user vouches for the images."""
        return self.declare is not None and bool(one_of(self.declare, ["cifar10"], field="--declare"))

    def read_seeds(self) -> list[int]:
        """The seeds to train with.

        Raises:
            InputError: their number is none, or they would run beyond what a seed may be.
        """
        count = parse_count(self.seeds, field="--seeds")
        if count > 1_000:
            raise InputError("--seeds", self.seeds, "must be at most 1,000")
        if self.first_seed + count > 2**32:
            raise InputError("--seed", self.first_seed, f"must leave room for {count} seeds up to 2**32 - 1")
        return list(range(self.first_seed, self.first_seed + count))


def _trained(setting: _Setting, groups: Sequence[_Group], *, purpose: str) -> list[list[RunRecord]]:
    """Trains every group with every seed and, when all of them stand, judges them on the test set."""
    seeds, sizes = setting.read_seeds(), read_sizes(setting.train_size, setting.validation_size)
    declared, threads = setting.declared, read_threads(setting.threads)
    require_folder(setting.out, field="--out")
    trackers = read_trackers(setting.track, out=setting.out)
    from budgetnet.data import declared_cifar10
    from budgetnet.engines.local import Batch, PlannedRun, first_run
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.devices import choose_device
    from budgetnet.training.progress import TerminalProgress, load_shown

    chosen = choose_device(setting.device)
    dataset = load_shown(setting.data)
    if declared:
        dataset = declared_cifar10(dataset, field="--declare")
    batch = Batch(dataset, device=chosen, out=setting.out, **sizes)
    # One seed of all groups after the other: what is broken off still compares them on the seeds that it has.
    runs = [PlannedRun(spec=group.spec, recipe=group.recipe, seed=seed) for seed in seeds for group in groups]
    set_threads_shown(threads, lambda: first_run(batch, runs))
    try:
        with TerminalProgress(runs=len(runs)) as progress:
            records = batch.train(runs, Callbacks([progress, *trackers]))
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing is lost, the same command goes on where it stopped", err=True)
        raise
    records = batch.judge(records, by=f"reproduce {purpose}", reason=f"reproduction of what is published: {purpose}")
    return [records[place :: len(groups)] for place in range(len(groups))]


@reproduce.command("list", cls=Command)
def list_published(
    contradictions: Annotated[
        bool, typer.Option("--contradictions", help="List instead where the publication contradicts itself.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What is published: value, images behind it, source, and which of its facts are stated and which inferred."""
    from budgetnet.model import published

    if as_json:
        points = [point.to_mapping() for point in published.contradictions()]
        claims = [{**each.to_mapping(), "unknown": list(each.unknown)} for each in published.results().values()]
        print_json(points if contradictions else claims)
        return
    from budgetnet.cli.published_tables import print_contradictions, print_results
    from budgetnet.cli.tables import console

    if contradictions:
        print_contradictions(console(), published.contradictions())
    else:
        print_results(console(), list(published.results().values()))


@reproduce.command(cls=Command)
def reference(
    recipe: PublishedRecipe = "paper",
    seeds: Seeds = "1",
    data: PublishedData = "cifar10",
    declare: Declare = None,
    epochs: Epochs = None,
    seed: Seed = 0,
    train_size: TrainSize = None,
    validation_size: ValidationSize = None,
    out: Out = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Train the reference and set it against 91.41 % and Table 1; ends with 4 when it is not reproduced."""
    how = read_recipe(recipe, data=data, epochs=epochs)
    setting = _Setting(data, declare, seeds, seed, train_size, validation_size, out, device, threads, track)
    (records,) = _trained(setting, [_Group(read_spec("reference"), how)], purpose="reference")
    from budgetnet.experiments.reproduction.reference import reference_result

    result = reference_result(records, declared=setting.declared)
    if as_json:
        print_json(result.to_mapping())
    else:
        from budgetnet.cli.reproduction_tables import print_reference

        print_reference(result, records, out=out)
    if result.verdict.exit_code:
        raise typer.Exit(result.verdict.exit_code)


@reproduce.command(cls=Command)
def leakage(
    spec: Annotated[str, typer.Option("--spec", metavar="SPEC", help="The network; another is quicker.")] = "reference",
    seeds: Seeds = "3",
    data: PublishedData = "cifar10",
    declare: Declare = None,
    epochs: Epochs = None,
    seed: Seed = 0,
    train_size: TrainSize = None,
    validation_size: ValidationSize = None,
    out: Out = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Train as the notebook did and as the paper says, and show by how much the split of the former flatters."""
    network = read_spec(spec)
    groups = [_Group(network, read_recipe(name, data=data, epochs=epochs)) for name in ("as-run", "paper")]
    setting = _Setting(data, declare, seeds, seed, train_size, validation_size, out, device, threads, track)
    leaking, sound = _trained(setting, groups, purpose="leakage")
    from budgetnet.experiments.reproduction.leakage import leakage_result

    result = leakage_result(leaking, sound)
    if as_json:
        print_json(result.to_mapping())
    else:
        from budgetnet.cli.reproduction_tables import print_leakage

        print_leakage(result, leaking, out=out)


@reproduce.command(cls=Command)
def ladder(
    recipe: PublishedRecipe = "paper",
    seeds: Seeds = "3",
    data: PublishedData = "cifar10",
    declare: Declare = None,
    epochs: Epochs = None,
    seed: Seed = 0,
    train_size: TrainSize = None,
    validation_size: ValidationSize = None,
    out: Out = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Train the paper's four networks, and show whether each step up its ladder is one here as well."""
    how = read_recipe(recipe, data=data, epochs=epochs)
    from budgetnet.experiments.reproduction.ladder import ladder_result, rungs

    groups = [_Group(read_spec(rung.known_spec), how) for rung in rungs()]
    setting = _Setting(data, declare, seeds, seed, train_size, validation_size, out, device, threads, track)
    records = _trained(setting, groups, purpose="ladder")
    result = ladder_result(records, declared=setting.declared)
    if as_json:
        print_json(result.to_mapping())
    else:
        from budgetnet.cli.reproduction_tables import print_ladder

        print_ladder(result, records[0], out=out)


@reproduce.command(cls=Command)
def ensemble(
    spec: Annotated[
        str, typer.Option("--spec", metavar="SPEC", help="The members' network; the paper names none.")
    ] = "ladder-small",
    members: Annotated[
        str, typer.Option("--members", metavar="N", help="Networks to average, each trained with its own seed.")
    ] = "5",
    recipe: PublishedRecipe = "paper",
    max_params: MaxParams = "5M",
    data: PublishedData = "cifar10",
    declare: Declare = None,
    epochs: Epochs = None,
    seed: Seed = 0,
    train_size: TrainSize = None,
    validation_size: ValidationSize = None,
    out: Out = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Train members apart and average what they say of the test set; ends with 3 when over budget together."""
    budget = read_budget(max_params, None, None)
    if parse_count(members, field="--members") < 2:
        raise InputError("--members", members, "must be two or more")
    how = read_recipe(recipe, data=data, epochs=epochs)
    setting = _Setting(data, declare, members, seed, train_size, validation_size, out, device, threads, track)
    (records,) = _trained(setting, [_Group(read_spec(spec), how)], purpose="ensemble")
    from budgetnet.experiments.reproduction.ensemble import ensemble_reproduction

    result = ensemble_reproduction(records, budget=budget)
    if as_json:
        print_json(result.to_mapping())
    else:
        from budgetnet.cli.reproduction_tables import print_ensemble

        print_ensemble(result, records, out=out)
    if not result.fits:
        raise typer.Exit(OverBudgetError.exit_code)
