"""Forest plots of ablations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetnet.experiments.ablation.study import reference_text
from budgetnet.visualization.figures.forest import ForestRow, forest
from budgetnet.visualization.figures.pooled_forest import NetworkPoint, PooledRow, pooled_forest

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from budgetnet.experiments.ablation.results import AblationResult


def ablation_rows(result: AblationResult) -> list[ForestRow]:
    """Return the rows of a forest plot: every variant except the bases, in order."""
    rows = []
    for row in result.rows:
        if row.variant.is_base:
            continue
        difference = row.difference
        low, high = (difference.interval if difference and difference.interval else None) or (None, None)
        rows.append(
            ForestRow(
                row.variant.title,
                difference.n if difference else 0,
                difference.mean if difference else None,
                low,
                high,
                row.significant,
                row.variant.spec.params,
                row.remark,
                row.variant.compared_with if result.study.has_several_references else "",
            )
        )
    return rows


def pooled_rows(result: AblationResult) -> list[PooledRow]:
    """Return the rows of a pooled forest plot: every comparison over several networks, in the order of changes."""
    rows = []
    for change in result.changes:
        for comparison in change.comparisons:
            own = [
                NetworkPoint(network, row.variant.title, row.difference.mean, row.difference.interval)
                for network, row in comparison.rows.items()
                if row.difference
            ]
            pooled = comparison.pooled
            difference = pooled.difference if pooled else None
            rows.append(
                PooledRow(
                    change.name,
                    comparison.label if len(change.comparisons) > 1 else "",
                    sum(difference.pairs) if difference else 0,
                    difference.mean if difference else None,
                    difference.interval if difference else None,
                    pooled.significant if pooled else None,
                    tuple(own),
                )
            )
    return rows


def ablation_forest(result: AblationResult) -> Figure:
    """Draw the differences of an ablation's variants with their intervals.

    Of a study of several networks it shows each comparison over all networks, and the networks' own as markers.
    """
    study = result.study
    name = study.name or "ablation"
    note = f"{study.judged_on} accuracy, {len(study.seeds)} paired seeds, Holm-corrected"
    if len(result.networks) > 1:
        note += "; alone: to the base; without it: all options without it to all; bars: all networks together, 95 %"
        title = f"{name}: difference over all networks"
        return pooled_forest(pooled_rows(result), networks=result.networks, title=title, note=note)
    to = reference_text(study)
    return forest(ablation_rows(result), title=f"{name}: difference to {to}", note=note, base=to)
