"""Write the tables and the figure of the networks that were trained on all of CIFAR-10 and evaluated on its test set.

    python studies/results/make_results.py

All numbers come from the records of the studies. Tables replace what stands between ``<!-- table: NAME -->`` and
``<!-- end of table -->`` in the README, in docs/ and in studies/; the figure, docs/images/cifar10.svg, is drawn in
Chromium.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ablation_tables import winner_forest, winner_table
from result_rows import LEAST_IMAGES, Made, Published, Row, collect_rows

from budgetnet.common.files import write_text
from budgetnet.common.formatting import percent, short_count, short_p_value, short_petaflops
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.statistics.intervals import (
    format_with_interval,
    points,
    wilson_interval,
)
from budgetnet.visualization.figures.style import BLACK, BLUE, LEGEND_HEIGHT, PURPLE, SKY, VERMILLION, blank_figure
from budgetnet.visualization.figures.write import write_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

REPOSITORY = Path(__file__).resolve().parents[2]
WINNER = Path("studies") / "cifar10-winner-cpu" / "results" / "results.json"
"""Results of the ablation of the search's winner."""
TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
"""A table that is written, with the name of its content."""


COLUMNS = (
    *("network", "made", "parameters", "MACs", "recipe", "epochs", "PFLOP", "minutes", "seeds", "validation %"),
    "test % [95 %]",
)
FEW_COLUMNS = ("network", "made", "parameters", "MACs", "PFLOP", "minutes", "seeds", "test % [95 %]")
"""Those that the README shows."""


def results_table(rows: Sequence[Row], *, columns: Sequence[str] = COLUMNS) -> str:
    """Return the evaluated networks and the published reference as a Markdown table, the most accurate first."""
    reference = Published.load()
    published_cells = {
        "network": "*reference, as published*",
        "made": "by hand",
        "parameters": f"{reference.params:,}",
        "MACs": short_count(reference.macs),
        "seeds": "1",
        "test % [95 %]": format_with_interval(reference.accuracy, reference.interval),
    }
    entries = [(reference.accuracy, published_cells), *((fmean(row.tests), _cells(row)) for row in rows)]
    ordered = [cells for _, cells in sorted(entries, key=lambda entry: -entry[0])]
    lines = [columns, ["---"] * len(columns), *([cells.get(name, "") for name in columns] for cells in ordered)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> dict[str, str]:
    record = row.records[0]
    identity, result = record.identity, record.result
    test = format_with_interval(fmean(row.tests), row.interval)
    return {
        "network": f"`{identity.spec.label}`{_trained_by(record)}",
        "made": "**by search**" if row.found else row.made,
        "parameters": f"{result.params:,}",
        "MACs": short_count(result.macs),
        "recipe": f"`{identity.recipe.name}`",
        "epochs": str(result.epochs),
        "PFLOP": short_petaflops(record.train_flops),
        "minutes": f"{row.minutes:.0f}",
        "seeds": str(len(row.records)),
        "validation %": percent(fmean(each.result.validation_accuracy or 0.0 for each in row.records)),
        "test % [95 %]": f"**{test}**" if row.found else test,
    }


def _trained_by(record: RunRecord) -> str:
    """Return by which recipe the reference was trained, which is in the table as published too."""
    identity = record.identity
    return f" by `{identity.recipe.name}`" if identity.spec.name == "reference" else ""


def candidates_table(study: Path) -> str:
    """Return the candidates of a search with their validation accuracy, the most accurate first, as a Markdown table.

    Args:
        study: folder of the study, with `recipe.yaml` by which the candidates were trained.
    """
    recipe = Recipe.load(study / "recipe.yaml")
    records = [RunFolder(path.parent).load(weights=False) for path in sorted(study.glob("runs/*/result.json"))]
    own = [record for record in records if record.identity.recipe.digest == recipe.digest]
    lines = ["| network | made | parameters | MACs | epochs | validation % [95 %] |", "|---" * 6 + "|"]
    for record in sorted(own, key=lambda record: -(record.result.validation_accuracy or 0.0)):
        result, spec = record.result, record.identity.spec
        correct, images = result.validation_correct or 0, result.validation_images
        accuracy = format_with_interval(correct / images, wilson_interval(correct, images), images=images)
        ended = "" if result.status == "complete" else ", pruned"
        made = "by hand" if spec.name else "by search"
        cost = f"{result.params:,} | {short_count(result.macs)}"
        lines.append(f"| `{spec.label}` | {made} | {cost} | {result.epochs}{ended} | {accuracy} |")
    return "\n".join(lines)


def random_table(search: Path, random: Path) -> str:
    """Return what a search found and what as many random candidates had, as a Markdown table.

    The last two rows are cut where the sampler that used fewer operations ended, to compare at equal PFLOP.

    Args:
        search: folder of the search, with its trials in `trials.json`.
        random: folder of the search with random candidates, with the same.
    """
    samplers = {"surrogate": _sampled(search), "random": _sampled(random)}
    least = min(sum(trial["train_flops"] for trial in trials) for trials in samplers.values())
    lines = ["| sampler | candidates | PFLOP | pruned | best % [95 %] | mean of the best five % |", "|---" * 6 + "|"]
    for limit in (math.inf, least):
        for name, trials in samplers.items():
            used = accumulate(trial["train_flops"] for trial in trials)
            taken = [trial for trial, flops in zip(trials, used, strict=True) if flops <= limit]
            best, *_ = ranked = sorted(taken, key=lambda trial: -trial["accuracy"])
            interval = wilson_interval(best["correct"], best["images"])
            cells = (
                name if limit == math.inf else f"{name}, equal PFLOP",
                str(len(taken)),
                short_petaflops(sum(trial["train_flops"] for trial in taken)),
                str(sum(trial["outcome"] == "pruned" for trial in taken)),
                format_with_interval(best["accuracy"], interval, images=best["images"]),
                percent(fmean(trial["accuracy"] for trial in ranked[:5])),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _sampled(study: Path) -> list[dict[str, Any]]:
    """Return the trained candidates that a sampler proposed, in their order."""
    trials = json.loads((study / "trials.json").read_text(encoding="utf-8"))["trials"]
    return [trial for trial in trials if trial["trained"] and not trial["enqueued"]]


def reproductions_table(study: Path) -> str:
    """Return the comparison of each training of the reference with the published number, as a Markdown table.

    Args:
        study: folder of what ``budgetnet reproduce reference --json`` printed, one file by recipe, with the records of
            the runs.
    """
    columns = ("recipe", "epochs", "seeds", "images", "test % [95 %]", "difference, points [95 %]", "p", "verdict")
    lines = [columns, ["---"] * len(columns)]
    for path in sorted(study.glob("reference-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines.append(_comparison(found["verdict"], [_record(study / "runs" / run["run"]) for run in found["runs"]]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _record(folder: Path) -> RunRecord:
    return RunFolder(folder).load(weights=False)


def _comparison(verdict: Mapping[str, Any], records: Sequence[RunRecord]) -> list[str]:
    """Return the cells of a comparison with the published number."""
    row = Row(tuple(records), "by hand")
    low, high = map(points, verdict["interval"])
    return [
        f"`{records[0].identity.recipe.name}`",
        ", ".join(str(record.result.epochs) for record in records),
        str(len(row.tests)),
        ", ".join({f"{record.test.images:,}" for record in records if record.test}),
        format_with_interval(fmean(row.tests), row.interval),
        f"{points(verdict['difference'])} [{low}, {high}]",
        short_p_value(verdict["p_value"]),
        f"*{verdict['outcome']}*",
    ]


def hours_table(studies: Path) -> str:
    """Return the hours and operations of the trainings on all of CIFAR-10 by study, as a Markdown table."""
    lines = ["| study | trainings | PFLOP | hours |", "|---|---|---|---|"]
    total = [0, 0.0, 0.0]
    for folder in sorted({path.parents[2] for path in studies.glob("*/runs/*/result.json")}):
        records = [RunFolder(path.parent).load(weights=False) for path in sorted(folder.glob("runs/*/result.json"))]
        records = [record for record in records if record.identity.data.train_images >= LEAST_IMAGES]
        if not records:
            continue
        own = [
            len(records),
            sum(record.train_flops for record in records),
            sum(epoch.seconds for record in records for epoch in record.curves) / 3600,
        ]
        total = [one + other for one, other in zip(total, own, strict=True)]
        lines.append(
            f"| [`{folder.name}`](../studies/{folder.name}) | {own[0]} | {short_petaflops(own[1])} | {own[2]:.1f} |"
        )
    return "\n".join([*lines, f"| all | {total[0]} | {short_petaflops(total[1])} | {total[2]:.1f} |"])


def accuracy_figure(rows: Sequence[Row]) -> Figure:
    """Draw test accuracy against parameters, with intervals, and the published reference."""
    from plotly.graph_objects import Scatter

    reference, best = Published.load(), rows[0]
    figure = blank_figure(
        title="Test accuracy on CIFAR-10 against parameters",
        note="Bars: 95 % intervals over seeds, or of one evaluation. 104 of the 60,000 images are JPEG copies.",
        alt=f"{len(rows)} networks; the most accurate has {best.records[0].result.params:,} parameters and "
        f"{100 * fmean(best.tests):.2f} %, the published one {100 * reference.accuracy:.2f} %.",
        height=380,
        above=LEGEND_HEIGHT,
    )
    kinds: tuple[tuple[str, str, str, Made], ...] = (
        ("found by a search", VERMILLION, "diamond", "by search"),
        ("made by hand", BLUE, "circle", "by hand"),
        ("drawn at random", SKY, "square", "at random"),
    )
    series = [(name, colour, symbol, [row for row in rows if row.made == made]) for name, colour, symbol, made in kinds]
    drawn = [
        (name, colour, symbol, [(row.records[0].result.params, fmean(row.tests), row.interval) for row in chosen])
        for name, colour, symbol, chosen in series
        if chosen
    ]
    point = (reference.params, reference.accuracy, reference.interval)
    for name, colour, symbol, marks in [*drawn, ("published reference", PURPLE, "star", [point])]:
        figure.add_trace(
            Scatter(
                x=[params for params, _, _ in marks],
                y=[100 * accuracy for _, accuracy, _ in marks],
                error_y={
                    "type": "data",
                    "array": [100 * (interval.high - accuracy) for _, accuracy, interval in marks],
                    "arrayminus": [100 * (accuracy - interval.low) for _, accuracy, interval in marks],
                    "thickness": 1.5,
                },
                mode="markers",
                name=name,
                marker={"symbol": symbol, "size": 12, "color": colour, "line": {"width": 1, "color": BLACK}},
            )
        )
    figure.update_xaxes(title_text="parameters (logarithmic)", type="log", dtick="D2", tickformat="~s")
    figure.update_yaxes(title_text="test accuracy, %")
    return figure


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """Return a page with its marked tables written anew.

    Raises:
        KeyError: a table is marked with a name that is not known.
    """
    return TABLE.sub(lambda match: f"{match[1]}\n{tables[match[2]]}\n\n{match[3]}", text)


def pages(repository: Path) -> list[Path]:
    """Return the pages that may have tables."""
    return [
        repository / "README.md",
        *sorted((repository / "docs").rglob("*.md")),
        *sorted((repository / "studies").rglob("*.md")),
    ]


def all_tables(studies: Path) -> dict[str, str]:
    """Return the tables by the name that pages mark them with."""
    rows = collect_rows(studies)
    return {
        "results": results_table(rows),
        "few-results": results_table(rows, columns=FEW_COLUMNS),
        "hours": hours_table(studies),
        "reproductions": reproductions_table(studies / "reproduction"),
        "candidates": candidates_table(studies / "cifar10-search-cpu"),
        "winner": winner_table(studies.parent / WINNER),
        "random": random_table(studies / "cifar10-search-cpu", studies / "cifar10-random-cpu"),
    }


def main() -> None:
    """Write tables and figure."""
    tables = all_tables(REPOSITORY / "studies")
    for page in pages(REPOSITORY):
        text = page.read_text(encoding="utf-8")
        if (written := with_tables(text, tables)) != text:
            write_text(page, written)
            print(f"written: {page.relative_to(REPOSITORY)}")
    images = REPOSITORY / "docs" / "images"
    write_figure(accuracy_figure(collect_rows(REPOSITORY / "studies")), images / "cifar10.svg")
    write_figure(winner_forest(REPOSITORY / WINNER), images / "winner-forest.svg")


if __name__ == "__main__":
    main()
