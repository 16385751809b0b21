"""Tables of ablations on CIFAR-10, from what ``budgetnet ablate --save`` wrote."""

from __future__ import annotations

import json
from pathlib import Path

from budgetnet.common.formatting import percent, short_count
from budgetnet.statistics.intervals import Interval, points


def winner_table(path: Path) -> str:
    """Return the variants of an ablation of a search's winner as a Markdown table, the largest loss first.

    Args:
        path: ``results.json`` of the ablation.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    variants = sorted(found["rows"], key=lambda row: (not row["is_base"], row.get("difference") or 0.0))
    columns = ("variant", "network", "parameters", "MACs", "n", "validation %", "difference, points [95 %]", "p (Holm)")
    lines = [columns, ["---"] * len(columns)]
    for row in variants:
        difference, p_value = "", ""
        if not row["is_base"]:
            difference = points(row["difference"], Interval(*row["interval"]))
            difference = f"**{difference}**" if row["significant"] else difference
            p_value = f"{row['holm_p_value']:.3f}"
        variant = f"{row['variant']}, refitted" if row["refitted"] else row["variant"]
        cells = [variant, f"`{row['architecture']}`", f"{row['params']:,}", short_count(row["macs"]), str(row["n"])]
        lines.append([*cells, percent(row["mean"]), difference, p_value])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
