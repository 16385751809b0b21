"""The figures of a report, as its page holds them: data for a script to draw, and a sentence that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from budgetnet.study.trials import Trial
from budgetnet.visualization.figures import (
    ablation_forest,
    accuracy_curves,
    accuracy_front,
    bare,
    budget_use,
    importance,
    outline,
    rungs,
)
from budgetnet.visualization.report.content import Report
from budgetnet.visualization.report.rejected import is_ranked

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MAX_REJECTED = 1_000
"""Proposals over budget that a figure shows; of more, some."""


class Drawn(NamedTuple):
    """A figure as the page holds it."""

    title: str
    note: str
    alt: str
    width: int
    """Most pixels across."""
    height: int
    """Pixels down."""
    json: Markup
    """For Plotly; holds nothing that could end the element that it stands in."""


def drawings(report: Report) -> dict[str, Any]:
    """The figures by section; those of which a section has several, as lists."""
    trials, limits = report.trials, report.settings.budget
    # Whatever a storage calls complete: nothing over budget stands on a front.
    admitted = [trial for trial in trials if trial.outcome != "complete" or is_ranked(trial, limits)]
    common: dict[str, Any] = {"budget": limits, "comparable": report.comparable}
    found: dict[str, Any] = {
        "front": [
            embedded(accuracy_front(admitted, cost="params", **common)),
            embedded(accuracy_front(admitted, cost="macs", **common)),
        ],
        "budget": _budget_use(trials),
        "rungs": embedded(rungs(trials)),
        "learning": [
            embedded(accuracy_curves(learning.records))._replace(title=learning.title) for learning in report.learning
        ],
        "ablations": [embedded(ablation_forest(ablation.result)) for ablation in report.ablations],
        "importance": None,
        "outline": None,
    }
    if report.importance:
        found["importance"] = embedded(importance(report.importance))
    if report.best_spec is not None:
        found["outline"] = embedded(outline(report.best_spec))
    return found


def _budget_use(trials: Sequence[Trial]) -> Drawn:
    """Draw all trials, or, of very many that are over budget, an evenly spaced sample."""
    drawn = embedded(budget_use(trials))
    away = [trial for trial in trials if trial.outcome == "over budget"]
    every = -(-len(away) // _MAX_REJECTED)
    if every <= 1:
        return drawn
    shown = {trial.number for trial in away[::every]}
    fewer = [trial for trial in trials if trial.outcome != "over budget" or trial.number in shown]
    note = f"{len(shown):,} of the {len(away):,} trials rejected over budget are drawn"
    return embedded(budget_use(fewer))._replace(alt=drawn.alt, note=note)


def look() -> Markup:
    """What all figures look like by themselves, for Plotly."""
    from plotly.io import templates
    from plotly.io.json import to_json_plotly

    return Markup(_harmless(to_json_plotly(templates["plotly_white"])))  # noqa: S704 - escaped


def _harmless(text: str) -> str:
    """JSON in which nothing can end the script element that it stands in."""
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def embedded(figure: Figure) -> Drawn:
    """A figure as a page holds it: its title, note and sentence as the page's own, the rest as data for Plotly."""
    from plotly.io.json import to_json_plotly

    shown, meta = bare(figure), figure.layout.meta
    content = shown.to_plotly_json()
    # The same for all figures, so that the page holds it once.
    content["layout"].pop("template", None)
    text = _harmless(to_json_plotly(content))
    return Drawn(meta["title"], meta["note"], meta["alt"], meta["width"], shown.layout.height, Markup(text))  # noqa: S704 - escaped above
