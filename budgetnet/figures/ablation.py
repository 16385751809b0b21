"""What an ablation came to, as a forest plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetnet.figures.forest import ForestRow, forest

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from budgetnet.ablation.results import AblationResult


def ablation_rows(result: AblationResult) -> list[ForestRow]:
    """Every variant but the bases, in their order, as a forest plot lists them."""
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
                row.variant.compared_with if result.study.has_options else "",
            )
        )
    return rows


def ablation_forest(result: AblationResult) -> Figure:
    """The differences of an ablation's variants to what they are compared with, with their intervals."""
    study = result.study
    note = f"{study.judged_on} accuracy, {len(study.seeds)} paired seeds, Holm-corrected"
    to = "what each is compared with" if study.has_options else "the base"
    return forest(ablation_rows(result), title=f"{study.name}: difference to {to}", note=note)
