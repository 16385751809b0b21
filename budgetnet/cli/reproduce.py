"""Verbs about the published results: ``reproduce list`` and its like."""

from __future__ import annotations

from typing import Annotated

import typer

from budgetnet.cli.options import Json, print_json

reproduce = typer.Typer(help="Published results, and what becomes of them here.", no_args_is_help=True)


@reproduce.command("list")
def list_published(
    contradictions: Annotated[
        bool, typer.Option("--contradictions", help="List instead where the publication contradicts itself.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What is published: value, images behind it, source, and which of its facts are stated and which inferred."""
    from budgetnet import published

    if as_json:
        points = [point.to_mapping() for point in published.contradictions()]
        claims = [{**each.to_mapping(), "unknown": list(each.unknown)} for each in published.results().values()]
        print_json(points if contradictions else claims)
        return
    from budgetnet.cli.published import print_contradictions, print_results
    from budgetnet.cli.tables import console

    if contradictions:
        print_contradictions(console(), published.contradictions())
    else:
        print_results(console(), list(published.results().values()))
