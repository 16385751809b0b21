"""Terminal tables of ablations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from budgetnet.cli.tables import console
from budgetnet.common.formatting import count_of, percent, short_count, short_p_value, short_petaflops
from budgetnet.experiments.ablation.changes import EFFECT_RULE, POOLED_RULE, Comparison, Pooled
from budgetnet.experiments.ablation.results import AblationResult, Row
from budgetnet.experiments.ablation.study import AblationStudy, reference_text
from budgetnet.experiments.ablation.variants import Variant, shared_runs
from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.runs.recipe import LEAKAGE_WARNING
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import TEST_OPENINGS_FILE
from budgetnet.runs.training_cost import training_flops
from budgetnet.statistics.intervals import points

_FEW = 10
"""Number of pairs below which bootstrap intervals have clearly less than their nominal coverage."""
_WIDE = 110
"""Terminal width, in characters, from which all columns are shown."""


def print_variants(study: AblationStudy, variants: Sequence[Variant], *, images: int) -> None:
    """Print the variants that a study trains, which are over budget, and what all trainings cost at most.

    Args:
        study: the study.
        variants: its variants.
        images: number of training images.
    """
    twins = {variant.title: other.title for variant, other in shared_runs(variants)}
    for network in study.bases:
        ending = f", network {network}" if network else ""
        table = Table(title=f"{study.name or 'ablation'}: {study.design}{ending}", title_justify="left")
        compared = ["compared with"] if study.has_several_references else []
        for heading in ("variant", *compared, "architecture", "params", "MACs", ""):
            table.add_column(heading, justify="right" if heading in ("params", "MACs") else "left", overflow="fold")
        for variant in variants:
            if variant.network != network:
                continue
            remark = "" if variant.fits else Text("over budget", "red")
            if variant.title in twins:
                remark = f"trained as {twins[variant.title]}"
            cells: list[str | Text] = [variant.name, *([variant.compared_with] if compared else [])]
            cells += [variant.spec.label, f"{variant.spec.params:,}", short_count(variant.spec.macs), remark]
            table.add_row(*cells, style="bold" if variant.is_base else None)
        console().print(table)
    for remark in study.remarks:
        typer.echo(remark)
    distinct = {variant.key: variant for variant in variants}
    fitting, seeds = [variant for variant in distinct.values() if variant.fits], len(study.seeds)
    typer.echo(
        f"{len(fitting)} of {len(distinct)} variants are within budget; {count_of(seeds, 'seed')} each, "
        f"{count_of(len(fitting) * seeds, 'training run')}"
    )
    most = seeds * sum(training_flops(each.spec, each.recipe, images=images) for each in fitting)
    recipe = next(variant.recipe for variant in variants if variant.is_base)
    typer.echo(
        f"base: recipe {describe_recipe(recipe)}, {count_of(recipe.epochs, 'epoch')}; "
        f"all training runs: at most {short_petaflops(most)} PFLOP"
    )
    for variant in variants:
        if variant.is_base and not variant.fits:
            of = f" of {variant.network}" if variant.network else ""
            typer.echo(
                f"the base{of} is over budget, so no variant can be compared with it: the study cannot be trained"
            )


def print_ablation(result: AblationResult, record: RunRecord, *, out: Path) -> None:
    """Print the variants of each network with their differences, and the effect of each change."""
    study, output = result.study, console()
    to = reference_text(study)
    for network in result.networks:
        title = f"{study.name or 'ablation'}: {study.judged_on} accuracy in per cent, difference to {to} in points"
        output.print(_table(result, network, title=f"{title}; network {network}" if network else title))
    if result.changes:
        output.print(changes_table(result, output))
        typer.echo(EFFECT_RULE)
        if len(result.networks) > 1:
            typer.echo(POOLED_RULE)
    for remark in study.remarks:
        typer.echo(remark)
    for row in result.rows:
        if row.remark:
            typer.echo(f"{row.variant.title}: {row.remark}")
    for row in result.rows:
        if row.variant.also:
            typer.echo(f"{row.variant.title} is also {', '.join(row.variant.also)}")
    for variant, other in shared_runs([row.variant for row in result.rows]):
        typer.echo(f"{variant.title} has the same network and recipe as {other.title}: trained once")
    leaking = [row.variant.title for row in result.rows if row.variant.recipe.leaks]
    if leaking:
        typer.echo(f"{', '.join(leaking)}: {LEAKAGE_WARNING}")
    methods = {row.difference.method for row in result.rows if row.difference}
    tests = sum(row.p_value is not None for row in result.rows)
    together = f"all {tests} differences" if study.has_several_references else "all variants"
    together += " on single networks" if len(result.networks) > 1 else ""
    typer.echo(
        f"paired differences over seeds {', '.join(map(str, study.seeds))} "
        f"({', '.join(sorted(methods)) or 'no pairs'}); p-values corrected over {together} (Holm)"
    )
    if any(row.difference and row.difference.method == "bootstrap" and row.difference.n < _FEW for row in result.rows):
        typer.echo(f"bootstrap intervals of fewer than {_FEW} pairs are too narrow: they cover less than 95 %")
    data = record.identity.data
    opened = f"; test set used, see {out / TEST_OPENINGS_FILE}" if study.judged_on == "test" else ""
    typer.echo(
        f"data: {data.name}: {data.provenance}; {data.train_images:,} training and {data.validation_images:,} "
        f"validation images; run folders in {out}{opened}"
    )


def _table(result: AblationResult, network: str, *, title: str) -> Table:
    """Return the table of one network's variants."""
    wide, compared = console().width >= _WIDE, result.study.has_several_references
    table = Table(title=title, title_justify="left")
    table.add_column("variant", overflow="fold", min_width=14)
    headings = ["params", "MACs", "n", "mean", "sd"] if wide else ["params", "n", "mean"]
    headings += ["compared with"] if compared else []
    for heading in (*headings, "difference [95 %]", "p (Holm)" if wide else "p"):
        table.add_column(heading, justify="right", no_wrap=heading not in ("compared with", "difference [95 %]"))
    for row in result.rows_of(network):
        table.add_row(*_cells(row, result.study, wide=wide), style="bold" if row.variant.is_base else None)
    return table


def changes_table(result: AblationResult, output: Console) -> Table:
    """Return the table of changes with the most detail on single networks that fits the width."""
    unlimited = output.options.update_width(10_000)
    tables = [_changes_with(result, detail) for detail in ((2, 1, 0) if len(result.networks) > 1 else (2,))]
    return next(
        (each for each in tables if output.measure(each, options=unlimited).maximum <= output.width), tables[-1]
    )


def _changes_with(result: AblationResult, detail: int) -> Table:
    """Return the table of changes; detail on single networks: intervals (2), differences (1) or nothing (0)."""
    several = len(result.networks) > 1
    shown = result.networks if detail else ()
    title = "changes: difference [95 %] in points; alone: base + change vs base; without it: all - change vs all"
    starred = "; * beyond noise on that network" if several and shown else " (* beyond noise)" if shown else ""
    table = Table(title=f"{title}{starred}", title_justify="left")
    # Each change has two lines, one for each comparison; names and verdicts wrap.
    table.add_column("change", overflow="fold", min_width=10, max_width=16)
    table.add_column("", no_wrap=True)
    for network in shown:
        table.add_column(network or "difference", justify="right", no_wrap=True)
    if several:
        table.add_column("all networks", justify="right", no_wrap=True)
        table.add_column("p (Holm)", justify="right", no_wrap=True)
    table.add_column("verdict", min_width=11, max_width=16)
    for change in result.changes:
        lines = [_comparison_texts(each, shown, interval=detail == 2, several=several) for each in change.comparisons]
        stacked = [Text("\n").join(texts) for texts in zip(*lines, strict=True)]
        table.add_row(change.name, *stacked, change.verdict)
    return table


def _comparison_texts(comparison: Comparison, shown: Sequence[str], *, interval: bool, several: bool) -> list[Text]:
    """Return a comparison's label, its difference on each network shown, and the pooled difference with its p-value."""
    rows = [comparison.rows.get(network) for network in shown]
    texts = [Text(comparison.label), *(_difference_text(comparison, row, interval=interval) for row in rows)]
    if several:
        texts += [_difference_text(comparison, comparison.pooled, interval=True), _pooled_p(comparison)]
    return texts


def _difference_text(comparison: Comparison, found: Row | Pooled | None, *, interval: bool) -> Text:
    """Return a difference, green if it is significant and favours the change, red if significant and against it."""
    if found is None or found.difference is None:
        return Text("-")
    text = points(found.difference.mean, found.difference.interval if interval else None)
    star = "*" if isinstance(found, Row) and found.significant else ""
    return Text(f"{text}{star}", _colour(found, gains_above=comparison.kind == "alone"))


def _pooled_p(comparison: Comparison) -> Text:
    pooled = comparison.pooled
    if pooled is None:
        return Text("")
    return Text(_p_text(pooled.p_value), _colour(pooled, gains_above=comparison.kind == "alone"))


def _p_text(p_value: float | None) -> str:
    return "" if p_value is None else short_p_value(p_value)


def _colour(found: Row | Pooled, *, gains_above: bool = True) -> str:
    if found.difference is None or not found.significant:
        return ""
    return "green" if (found.difference.mean > 0) is gains_above else "red"


def _cells(row: Row, study: AblationStudy, *, wide: bool) -> list[str | Text]:
    spec, compared = row.variant.spec, study.has_several_references
    mean = "-" if row.mean is None else percent(row.mean)
    cells: list[str | Text] = [row.variant.name, f"{spec.params:,}"]
    if wide:
        deviation = "-" if row.standard_deviation is None else f"{100 * row.standard_deviation:.2f}"
        cells += [short_count(spec.macs), str(row.n), mean, deviation]
    else:
        cells += [str(row.n), mean]
    cells += [row.variant.compared_with] if compared else []
    if row.variant.is_base:
        return [*cells, "" if compared else study.base_name, ""]
    if row.difference is None:
        return [*cells, "over budget" if not row.variant.fits else "-", ""]
    difference = points(row.difference.mean, row.difference.interval)
    return [*cells, Text(difference, _colour(row)), Text(_p_text(row.p_value), _colour(row))]
