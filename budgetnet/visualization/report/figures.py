"""Figures of a report: data for Plotly, and a text alternative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from budgetnet.study.objectives import shown_costs
from budgetnet.study.trials import Trial
from budgetnet.visualization.figures import (
    ablation_forest,
    accuracy_curves,
    accuracy_front,
    bare,
    budget_use,
    confusion,
    effects,
    hypervolume,
    importance,
    outline,
    rungs,
)
from budgetnet.visualization.report.content import Ablation, Report
from budgetnet.visualization.report.rejected import is_ranked

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MAX_REJECTED = 1_000
"""Maximum number of proposals over budget in a figure; of more, a sample is drawn."""


class EmbeddedFigure(NamedTuple):
    """A figure embedded in the page."""

    title: str
    note: str
    alt: str
    width: int
    """Maximum width in pixels."""
    height: int
    """Height in pixels."""
    json: Markup
    """Figure for Plotly; cannot end the script element that contains it."""


def embedded_figures(report: Report) -> dict[str, Any]:
    """Return the figures by section; sections with several figures have lists."""
    trials, limits = report.trials, report.settings.budget
    # Check costs again, so that no candidate over budget is on a front, whatever the storage says.
    admitted = [trial for trial in trials if trial.outcome != "complete" or is_ranked(trial, limits)]
    costs = report.settings.config.costs
    common: dict[str, Any] = {"budget": limits, "comparable": report.comparable}
    found: dict[str, Any] = {
        "front": [embed(accuracy_front(admitted, cost=cost, **common)) for cost in shown_costs(costs)],
        "hypervolume": embed(hypervolume(admitted, costs=costs, budget=limits)) if costs else None,
        "budget": _budget_use(trials) if limits.allowed else None,
        "rungs": embed(rungs(trials)),
        "learning": [
            embed(accuracy_curves(learning.records))._replace(title=learning.title) for learning in report.learning
        ],
        **ablation_figures(report.ablations),
        "why": ablation_figures(report.why.ablations)["ablations"] if report.why else [],
        "importance": None,
        "effects": None,
        "outline": None,
        "confusion": None,
    }
    if report.importance:
        found["importance"] = embed(importance(report.importance))
    if report.effects:
        found["effects"] = embed(effects(report.effects))
    if report.best_spec is not None:
        found["outline"] = embed(outline(report.best_spec))
    if report.confusion is not None:
        found["confusion"] = embed(
            confusion(report.confusion.matrix, report.confusion.class_names, note=report.confusion.images)
        )
    return found


def ablation_figures(ablations: Sequence[Ablation]) -> dict[str, list[EmbeddedFigure]]:
    """Return the figures of ablations, as a section."""
    return {"ablations": [embed(ablation_forest(ablation.result)) for ablation in ablations]}


def _budget_use(trials: Sequence[Trial]) -> EmbeddedFigure:
    """Draw every proposal; if too many are over budget, draw an evenly spaced sample of those."""
    figure = embed(budget_use(trials))
    rejected = [trial for trial in trials if trial.outcome == "over budget"]
    every = -(-len(rejected) // _MAX_REJECTED)
    if every <= 1:
        return figure
    shown = {trial.number for trial in rejected[::every]}
    fewer = [trial for trial in trials if trial.outcome != "over budget" or trial.number in shown]
    note = f"{len(shown):,} of {len(rejected):,} candidates over budget are shown"
    return embed(budget_use(fewer))._replace(alt=figure.alt, note=note)


def plotly_template() -> Markup:
    """Return the Plotly template of all figures."""
    from plotly.io import templates
    from plotly.io.json import to_json_plotly

    return Markup(to_json_plotly(templates["plotly_white"]))  # noqa: S704 - Plotly escapes < and >


def embed(figure: Figure) -> EmbeddedFigure:
    """Return a figure for the page: title, note and text alternative as text, the rest as data for Plotly."""
    from plotly.io.json import to_json_plotly

    content = bare(figure)
    layout = content["layout"]
    meta = layout["meta"]
    # The template is the same for all figures and stored once in the page.
    layout.pop("template", None)
    text = Markup(to_json_plotly(content))  # noqa: S704 - Plotly escapes < and >
    return EmbeddedFigure(meta["title"], meta["note"], meta["alt"], meta["width"], layout["height"], text)
