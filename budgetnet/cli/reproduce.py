"""The ``budgetnet reproduce`` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.fields import Command, Group, takes_options_of
from budgetnet.cli.options import Json, Quiet, Verbose, print_json
from budgetnet.cli.parsing import check_names, read_verbosity
from budgetnet.cli.termination import interruption
from budgetnet.common.errors import OverBudgetError
from budgetnet.experiments.reproduction.config import (
    EnsembleConfig,
    LadderConfig,
    LeakageConfig,
    ReferenceConfig,
    ReproductionConfig,
)

if TYPE_CHECKING:
    from budgetnet.api.reproduction import Reproduction

reproduce = typer.Typer(cls=Group, help="List and reproduce published results.", no_args_is_help=True)


def _reproduce(config: ReproductionConfig, *, quiet: bool, verbose: bool, as_json: bool) -> Reproduction:
    """Run a reproduction, and print its result if it is to be JSON."""
    verbosity = read_verbosity(quiet=quiet, verbose=verbose)
    check_names(data=config.data)
    from budgetnet.api.reproduction import run_reproduction

    with interruption():
        found = run_reproduction(config, verbosity=verbosity, say=lambda line: typer.echo(line, err=True))
    if as_json:
        print_json(found.to_mapping())
    else:
        from budgetnet.cli.reproduction_tables import print_reproduction

        print_reproduction(found.result, found.records[0], out=config.out)
    return found


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
def reference(config: ReferenceConfig, quiet: Quiet = False, verbose: Verbose = False, as_json: Json = False) -> None:
    """Train the reference and compare it with 91.41 % and Table 1; exit code 4 if not reproduced."""
    result = _reproduce(config, quiet=quiet, verbose=verbose, as_json=as_json).result
    from budgetnet.experiments.reproduction.reference import ReferenceResult

    if isinstance(result, ReferenceResult) and result.verdict.exit_code:
        raise typer.Exit(result.verdict.exit_code)


@reproduce.command(cls=Command)
@takes_options_of(LeakageConfig)
def leakage(config: LeakageConfig, quiet: Quiet = False, verbose: Verbose = False, as_json: Json = False) -> None:
    """Train as the notebook did and as the paper says, and show how much the notebook's split inflates accuracy."""
    _reproduce(config, quiet=quiet, verbose=verbose, as_json=as_json)


@reproduce.command(cls=Command)
@takes_options_of(LadderConfig)
def ladder(config: LadderConfig, quiet: Quiet = False, verbose: Verbose = False, as_json: Json = False) -> None:
    """Train the paper's four networks and compare each with the one before; exit code 4 if not reproduced."""
    result = _reproduce(config, quiet=quiet, verbose=verbose, as_json=as_json).result
    from budgetnet.experiments.reproduction.ladder import LadderResult

    if isinstance(result, LadderResult) and result.rungs[-1].verdict.exit_code:
        raise typer.Exit(result.rungs[-1].verdict.exit_code)


@reproduce.command(cls=Command)
@takes_options_of(EnsembleConfig)
def ensemble(config: EnsembleConfig, quiet: Quiet = False, verbose: Verbose = False, as_json: Json = False) -> None:
    """Train members and evaluate their averaged probabilities on the test set; exit code 3 if over budget together."""
    result = _reproduce(config, quiet=quiet, verbose=verbose, as_json=as_json).result
    from budgetnet.experiments.reproduction.ensemble import EnsembleReproduction

    if isinstance(result, EnsembleReproduction) and not result.fits:
        raise typer.Exit(OverBudgetError.exit_code)
