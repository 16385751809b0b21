"""The ``budgetnet reproduce`` commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from budgetnet.cli.fields import Command, takes_options_of
from budgetnet.cli.options import Json, print_json, read_trackers, require_folder, set_threads_shown
from budgetnet.common.errors import OverBudgetError
from budgetnet.experiments.reproduction.config import (
    EnsembleConfig,
    LadderConfig,
    LeakageConfig,
    ReferenceConfig,
    ReproductionConfig,
)
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import find_spec
from budgetnet.runs.recipe import Recipe

if TYPE_CHECKING:
    from budgetnet.runs.records import RunRecord

reproduce = typer.Typer(help="List and reproduce published results.", no_args_is_help=True)


class _Group(NamedTuple):
    """Training runs that differ only in the seed."""

    spec: ModelSpec
    recipe: Recipe


def _train(config: ReproductionConfig, groups: Sequence[_Group], *, purpose: str) -> list[list[RunRecord]]:
    """Train every group with every seed and, when all runs are complete, evaluate them on the test set."""
    require_folder(config.out, field="out")
    trackers = read_trackers(config.track, out=config.out)
    from budgetnet.data import declared_cifar10
    from budgetnet.engines.local import Batch, PlannedRun, first_run
    from budgetnet.experiments.reproduction.stored import store_reproduction
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.devices import choose_device
    from budgetnet.training.progress import TerminalProgress, load_with_progress

    chosen = choose_device(config.device)
    dataset = load_with_progress(config.data)
    if config.declared:
        dataset = declared_cifar10(dataset, field="declare")
    sizes = {"train_size": config.train_size, "validation_size": config.validation_size}
    batch = Batch(dataset, device=chosen, out=config.out, **sizes)
    # All groups with one seed before the next seed, so that an interrupted reproduction still compares them.
    runs = [
        PlannedRun(spec=group.spec, recipe=group.recipe, seed=seed) for seed in config.seed_numbers for group in groups
    ]
    set_threads_shown(config.threads, lambda: first_run(batch, runs))
    if any(batch.record(run) is None for run in runs):
        store_reproduction(config)
    try:
        with TerminalProgress(runs=len(runs)) as progress:
            records = batch.train(runs, Callbacks([progress, *trackers]))
    except KeyboardInterrupt:
        typer.echo("interrupted: progress is saved, run the same command to resume", err=True)
        raise
    records = batch.evaluate_on_test(
        records, by=f"reproduce {purpose}", reason=f"reproduction of published results: {purpose}"
    )
    return [records[place :: len(groups)] for place in range(len(groups))]


@reproduce.command("list", cls=Command)
def list_published(
    contradictions: Annotated[
        bool, typer.Option("--contradictions", help="List where the publication contradicts itself instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List published results: value, number of images, source, and which facts are stated or inferred."""
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
@takes_options_of(ReferenceConfig)
def reference(config: ReferenceConfig, as_json: Json = False) -> None:
    """Train the reference and compare it with 91.41 % and Table 1; exit code 4 if not reproduced."""
    how = config.trained_by(config.recipe)
    (records,) = _train(config, [_Group(find_spec("reference"), how)], purpose="reference")
    from budgetnet.experiments.reproduction.reference import reference_result

    result = reference_result(records, declared=config.declared)
    if as_json:
        print_json(result.to_mapping())
    else:
        from budgetnet.cli.reproduction_tables import print_reference

        print_reference(result, records, out=config.out)
    if result.verdict.exit_code:
        raise typer.Exit(result.verdict.exit_code)


@reproduce.command(cls=Command)
@takes_options_of(LeakageConfig)
def leakage(config: LeakageConfig, as_json: Json = False) -> None:
    """Train as the notebook did and as the paper says, and show how much the notebook's split inflates accuracy."""
    network = find_spec(config.spec)
    groups = [_Group(network, config.trained_by(name)) for name in ("as-run", "paper")]
    leaking, sound = _train(config, groups, purpose="leakage")
    from budgetnet.experiments.reproduction.leakage import leakage_result

    result = leakage_result(leaking, sound)
    if as_json:
        print_json(result.to_mapping())
    else:
        from budgetnet.cli.reproduction_tables import print_leakage

        print_leakage(result, leaking, out=config.out)


@reproduce.command(cls=Command)
@takes_options_of(LadderConfig)
def ladder(config: LadderConfig, as_json: Json = False) -> None:
    """Train the paper's four networks, and show whether each step improves accuracy here as well."""
    how = config.trained_by(config.recipe)
    from budgetnet.experiments.reproduction.ladder import ladder_result, rungs

    groups = [_Group(find_spec(rung.known_spec), how) for rung in rungs()]
    records = _train(config, groups, purpose="ladder")
    result = ladder_result(records, declared=config.declared)
    if as_json:
        print_json(result.to_mapping())
    else:
        from budgetnet.cli.reproduction_tables import print_ladder

        print_ladder(result, records[0], out=config.out)


@reproduce.command(cls=Command)
@takes_options_of(EnsembleConfig)
def ensemble(config: EnsembleConfig, as_json: Json = False) -> None:
    """Train members and evaluate their averaged probabilities on the test set; exit code 3 if over budget together."""
    how = config.trained_by(config.recipe)
    (records,) = _train(config, [_Group(find_spec(config.spec), how)], purpose="ensemble")
    from budgetnet.experiments.reproduction.ensemble import ensemble_reproduction

    result = ensemble_reproduction(records, budget=Budget(max_params=config.max_params))
    if as_json:
        print_json(result.to_mapping())
    else:
        from budgetnet.cli.reproduction_tables import print_ensemble

        print_ensemble(result, records, out=config.out)
    if not result.fits:
        raise typer.Exit(OverBudgetError.exit_code)
