"""A report as one HTML page: everything is in it, nothing is fetched, every text is escaped."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from budgetnet.display import stages_html
from budgetnet.errors import InputError
from budgetnet.figures import (
    ablation_forest,
    accuracy_curves,
    accuracy_front,
    bare,
    budget_use,
    importance,
    outline,
    rungs,
    silhouette_svg,
)
from budgetnet.files import write_text
from budgetnet.published import get as published
from budgetnet.recipe import LEAKING
from budgetnet.report.content import Report
from budgetnet.report.rejected import counted
from budgetnet.report.words import (
    FILTERS,
    budget_words,
    data_words,
    environment_words,
    fate_words,
    final_verdict,
    verdict_words,
)
from budgetnet.trials import Trial
from budgetnet.version import __version__

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_LISTED = 500
"""Candidates that are not ranked and are listed one by one; of more, the table counts them alone."""


_MOST_TURNED_AWAY = 1_000
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


def require_page(path: Path, *, field: str = "-o") -> None:
    """Refuses a report's file before any work is done for it.

    Raises:
        InputError: the file's name does not end in ``.html``, or its folder is missing or closed.
    """
    if path.suffix.lower() != ".html":
        raise InputError(field, str(path), "must end in .html")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(field, str(path), "must be a file in a folder that exists and can be written to")


def write_report(report: Report, path: Path, *, field: str = "-o") -> None:
    """Writes a report as a page, atomically; one that is there is replaced.

    Raises:
        InputError: as `require_page`.
    """
    require_page(path, field=field)
    write_text(path, render(report))


def render(report: Report) -> str:
    """The report as an HTML page of its own."""
    scripts = _scripts()
    figures = _figures(report)
    rejected = counted(report.rejections)
    page: str = (
        _templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            figures=figures,
            silhouette=None if report.best_spec is None else Markup(silhouette_svg(report.best_spec)),  # noqa: S704 - made of elements, in which every text is escaped
            stages=None if report.best_spec is None else Markup(stages_html(report.best_spec)),  # noqa: S704 - likewise
            look=_look(),
            policy=_policy(scripts),
            scripts=[Markup(script) for script in scripts],  # noqa: S704 - our own, and Plotly's
            style=Markup(_asset("report.css")),  # noqa: S704 - our own
            rejected=rejected,
            listed=report.rejections[:MOST_LISTED],
            budget=budget_words(report.settings.budget),
            data=data_words(report.settings.data),
            fates=fate_words(report.counts),
            verdict=verdict_words(report),
            final_verdict=final_verdict,
            environments=[environment_words(each) for each in report.environments],
            leaking=LEAKING,
            leaking_accuracy=published("leaking-validation").accuracy,
            version=__version__,
        )
    )
    return page


def _policy(scripts: list[str]) -> str:
    """What the page may do: run its own scripts, known by their hashes, and fetch nothing."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    # Plotly writes its styles into the page, and lays pictures out as data.
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


@cache
def _scripts() -> list[str]:
    from plotly.offline import get_plotlyjs

    return [get_plotlyjs(), _asset("report.js")]


def _asset(name: str) -> str:
    return (Path(__file__).with_name("templates") / name).read_text(encoding="utf-8")


@cache
def _templates() -> Environment:
    # Every template is a page or a part of one.
    environment = Environment(
        loader=PackageLoader("budgetnet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _figures(report: Report) -> dict[str, Any]:
    """The figures by section; those of which a section has several, as lists."""
    trials = report.trials
    common: dict[str, Any] = {"budget": report.settings.budget, "comparable": report.comparable}
    found: dict[str, Any] = {
        "front": [
            embedded(accuracy_front(trials, cost="params", **common)),
            embedded(accuracy_front(trials, cost="macs", **common)),
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
    """Every proposal, or, where too many were turned away to draw them all, some of those: spread over the search."""
    drawn = embedded(budget_use(trials))
    away = [trial for trial in trials if trial.fate == "over budget"]
    every = -(-len(away) // _MOST_TURNED_AWAY)
    if every <= 1:
        return drawn
    shown = {trial.number for trial in away[::every]}
    fewer = [trial for trial in trials if trial.fate != "over budget" or trial.number in shown]
    note = f"of those turned away over budget {len(shown):,} of {len(away):,} are drawn"
    return embedded(budget_use(fewer))._replace(alt=drawn.alt, note=note)


def _look() -> Markup:
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
