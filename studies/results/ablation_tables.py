"""Table and figure of the ablation of a search's winner on CIFAR-10, from what ``budgetnet ablate --save`` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetnet.common.formatting import percent, short_count, short_p_value
from budgetnet.statistics.intervals import Interval, points
from budgetnet.visualization.figures import ForestRow, forest

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def winner_table(path: Path) -> str:
    """Return the variants of an ablation of a search's winner as a Markdown table, the largest loss first.

    Args:
        path: ``results.json`` of the ablation.
    """
    columns = ("variant", "network", "parameters", "MACs", "n", "validation %", "difference, points [95 %]", "p (Holm)")
    lines = [columns, ["---"] * len(columns)]
    for row in _variants(path):
        difference, p_value = "", ""
        if not row["is_base"]:
            difference = points(row["difference"], Interval(*row["interval"]))
            difference = f"**{difference}**" if row["significant"] else difference
            p_value = short_p_value(row["holm_p_value"])
        network = [f"`{row['architecture']}`", f"{row['params']:,}", short_count(row["macs"])]
        lines.append([row["variant"], *network, str(row["n"]), percent(row["mean"]), difference, p_value])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def winner_forest(path: Path) -> Figure:
    """Draw the differences of the variants to the winner; arguments as for `winner_table`."""
    rows = []
    for row in _variants(path):
        if not row["is_base"]:
            low, high = row["interval"]
            name, n, difference = row["variant"], row["n"], row["difference"]
            rows.append(ForestRow(name, n, difference, low, high, row["significant"], row["params"], row["remark"]))
    return forest(
        rows,
        title="Each factor of the found network set back to the reference's",
        note="Validation accuracy after 3 epochs, 3 paired seeds, Holm-corrected. Refitted: to the winner's cost.",
        base="the winner",
    )


def _variants(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an ablation, the base first, then the largest loss first."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return sorted(rows, key=lambda row: (not row["is_base"], row["difference"] or 0.0))
