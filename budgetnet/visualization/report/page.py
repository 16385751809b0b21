"""Rendering of a report as a self-contained HTML page; all text is escaped."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from budgetnet.common.errors import InputError
from budgetnet.common.files import write_text
from budgetnet.experiments.ablation.changes import EFFECT_RULE, POOLED_RULE
from budgetnet.model.published import get as published
from budgetnet.runs.recipe import LEAKAGE_WARNING
from budgetnet.study.leaderboard import rows_needs
from budgetnet.study.trials import outcome_text
from budgetnet.version import __version__
from budgetnet.visualization.figures import silhouette_svg
from budgetnet.visualization.figures.write import require_place
from budgetnet.visualization.html import stages_html
from budgetnet.visualization.report.content import ExperimentReport, Report
from budgetnet.visualization.report.figures import ablation_figures, embedded_figures, plotly_template
from budgetnet.visualization.report.formatting import (
    FILTERS,
    budget_text,
    data_text,
    environment_text,
    final_verdict,
    front_text,
    objectives_text,
    verdict_text,
)
from budgetnet.visualization.report.rejected import counted

MAX_LISTED = 500
"""Maximum number of unranked candidates that are listed; the others are only counted."""


def require_page(path: Path, *, field: str = "-o") -> None:
    """Check that a report can be written to a file.

    Raises:
        InputError: the file's name does not end in ``.html``, or its folder is missing or not writable.
    """
    if path.suffix.lower() != ".html":
        raise InputError(field, str(path), "must end in .html")
    require_place(path, field=field)


def write_report(report: Report | ExperimentReport, path: Path, *, field: str = "-o") -> None:
    """Write a report as an HTML page, atomically; an existing file is replaced.

    Raises:
        InputError: see `require_page`.
    """
    require_page(path, field=field)
    write_text(path, render(report))


def render(report: Report | ExperimentReport) -> str:
    """Return the report as HTML."""
    scripts = _scripts()
    page: str = (
        _templates()
        .get_template("report.html.j2" if isinstance(report, Report) else "experiments.html.j2")
        .render(
            report=report,
            plotly_template=plotly_template(),
            policy=_policy(scripts),
            scripts=[Markup(script) for script in scripts],  # noqa: S704 - scripts of this package and of Plotly
            style=Markup(_asset("report.css")),  # noqa: S704 - from this package
            effect_rule=EFFECT_RULE,
            pooled_rule=POOLED_RULE,
            leaking=LEAKAGE_WARNING,
            leaking_accuracy=published("leaking-validation").accuracy,
            published_accuracy=published("reference").accuracy,
            version=__version__,
            **(_of_search(report) if isinstance(report, Report) else {"figures": ablation_figures(report.ablations)}),
        )
    )
    return page


def _of_search(report: Report) -> dict[str, Any]:
    """Return the variables of the templates of a search."""
    best = report.best_spec
    return {
        "figures": embedded_figures(report),
        # Both functions escape all text.
        "silhouette": None if best is None else Markup(silhouette_svg(best)),  # noqa: S704
        "stages": None if best is None else Markup(stages_html(best)),  # noqa: S704
        "rejected": counted(report.rejections),
        "listed": report.rejections[:MAX_LISTED],
        "budget": budget_text(report.settings.budget),
        "limited": bool(report.settings.budget.allowed),
        "data": data_text(report.settings.data),
        "outcomes": f"{len(report.trials):,} proposed, {outcome_text(report.counts)}",
        "objectives": objectives_text(report.settings.config.costs),
        "front": front_text(report),
        "deployed": rows_needs([standing.row for standing in report.standings]),
        "verdict": verdict_text(report),
        "final_verdict": final_verdict,
        "environments": [environment_text(each) for each in report.environments],
    }


def _policy(scripts: list[str]) -> str:
    """Return the Content-Security-Policy: only the page's own scripts, by their hashes, and no requests."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    # Plotly writes inline styles and uses data URLs for images.
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


@cache
def _scripts() -> list[str]:
    from plotly.offline import get_plotlyjs

    return [get_plotlyjs(), _asset("report.js")]


def _asset(name: str) -> str:
    return (Path(__file__).with_name("templates") / name).read_text(encoding="utf-8")


@cache
def _templates() -> Environment:
    # All templates are HTML.
    environment = Environment(
        loader=PackageLoader("budgetnet.visualization.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment
