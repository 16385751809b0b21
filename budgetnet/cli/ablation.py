"""How ablations look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from budgetnet.ablation.results import AblationResult, Row
from budgetnet.ablation.study import AblationStudy
from budgetnet.ablation.variants import Variant
from budgetnet.cli.tables import console
from budgetnet.recipe import LEAKING
from budgetnet.records import RunRecord
from budgetnet.run_folder import OPENINGS
from budgetnet.words import percent, points, short_count

_FEW = 10
"""Pairs below which a bootstrapped interval holds the truth clearly less often than it says."""
_WIDE = 110
"""Columns from which on everything has room."""


def print_variants(study: AblationStudy, variants: Sequence[Variant]) -> None:
    """Prints what a study would train, and what is over its budget."""
    table = Table(title=f"{study.name or 'ablation'}: {study.design}", title_justify="left")
    for heading in ("variant", "architecture", "params", "MACs", ""):
        table.add_column(heading, justify="right" if heading in ("params", "MACs") else "left", overflow="fold")
    for variant in variants:
        remark = "" if variant.fits else Text("over budget", "red")
        counts = f"{variant.spec.params:,}", short_count(variant.spec.macs)
        table.add_row(variant.name, variant.spec.label, *counts, remark, style="bold" if variant.is_base else None)
    console().print(table)
    fitting = sum(variant.fits for variant in variants)
    typer.echo(f"{fitting} of {len(variants)} variants are within budget; {len(study.seeds)} seeds each")
    if not variants[0].fits:
        typer.echo("the base itself is over budget, so nothing can be compared with it: the study cannot be trained")


def print_ablation(result: AblationResult, record: RunRecord, *, out: Path) -> None:
    """Prints every variant beside the base, with what has to be known of the numbers."""
    study, output = result.study, console()
    wide = output.width >= _WIDE
    title = f"{study.name or 'ablation'}: {study.judged_on} accuracy in per cent, difference to the base in points"
    table = Table(title=title, title_justify="left")
    table.add_column("variant", overflow="fold", min_width=14)
    headings = ["params", "MACs", "n", "mean", "sd"] if wide else ["params", "n", "mean"]
    for heading in (*headings, "difference [95 %]", "p (Holm)" if wide else "p"):
        table.add_column(heading, justify="right", no_wrap=heading not in ("difference [95 %]",))
    for row in result.rows:
        table.add_row(*_cells(row, wide=wide), style="bold" if row.variant.is_base else None)
    output.print(table)
    for row in result.rows:
        if row.remark:
            typer.echo(f"{row.variant.name}: {row.remark}")
    for row in result.rows:
        if row.variant.also:
            typer.echo(f"{row.variant.name} is also {', '.join(row.variant.also)}")
    leaking = [row.variant.name for row in result.rows if row.variant.recipe.leaks]
    if leaking:
        typer.echo(f"{', '.join(leaking)}: {LEAKING}")
    methods = {row.difference.method for row in result.rows if row.difference}
    typer.echo(
        f"seeds {', '.join(map(str, study.seeds))}, the same for all, so differences are of pairs "
        f"({', '.join(sorted(methods)) or 'no pairs'}); p corrected for all variants together (Holm)"
    )
    if any(row.difference and row.difference.method == "bootstrap" and row.difference.n < _FEW for row in result.rows):
        typer.echo(f"a bootstrap of fewer than {_FEW} pairs is too sure of itself: its intervals are too narrow")
    data = record.identity.data
    opened = f"; the test set was opened, see {out / OPENINGS}" if study.judged_on == "test" else ""
    typer.echo(
        f"data: {data.name}: {data.provenance}; {data.train_images:,} training and {data.validation_images:,} "
        f"validation images; run folders in {out}{opened}"
    )


def _cells(row: Row, *, wide: bool) -> list[str | Text]:
    spec = row.variant.spec
    mean = "-" if row.mean is None else percent(row.mean)
    cells: list[str | Text] = [row.variant.name, f"{spec.params:,}"]
    if wide:
        deviation = "-" if row.standard_deviation is None else f"{100 * row.standard_deviation:.2f}"
        cells += [short_count(spec.macs), str(row.n), mean, deviation]
    else:
        cells += [str(row.n), mean]
    if row.variant.is_base:
        return [*cells, "base", ""]
    if row.difference is None:
        return [*cells, "over budget" if not row.variant.fits else "-", ""]
    colour = ("green" if row.difference.mean > 0 else "red") if row.significant else ""
    p_value = "" if row.p_value is None else f"{row.p_value:.3f}" if row.p_value >= 0.001 else "<0.001"
    return [*cells, Text(points(row.difference.mean, row.difference.interval), colour), Text(p_value, colour)]
