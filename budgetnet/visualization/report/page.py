"""A report as one HTML page: everything is in it, nothing is fetched, every text is escaped."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from budgetnet.common.errors import InputError
from budgetnet.common.files import write_text
from budgetnet.experiments.ablation.changes import EFFECT_RULE, POOLED_RULE
from budgetnet.model.published import get as published
from budgetnet.runs.recipe import LEAKAGE_WARNING
from budgetnet.version import __version__
from budgetnet.visualization.figures import silhouette_svg
from budgetnet.visualization.html import stages_html
from budgetnet.visualization.report.content import Report
from budgetnet.visualization.report.figures import drawings, look
from budgetnet.visualization.report.formatting import (
    FILTERS,
    budget_words,
    data_words,
    environment_words,
    final_verdict,
    outcome_text,
    verdict_words,
)
from budgetnet.visualization.report.rejected import counted

MOST_LISTED = 500
"""Candidates that are not ranked and are listed one by one; of more, the table counts them alone."""


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
    best = report.best_spec
    template = _templates().get_template("report.html.j2")
    page: str = template.render(
        report=report,
        figures=drawings(report),
        # Made of elements, in which every text is escaped.
        silhouette=None if best is None else Markup(silhouette_svg(best)),  # noqa: S704
        stages=None if best is None else Markup(stages_html(best)),  # noqa: S704
        look=look(),
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - our own, and Plotly's
        style=Markup(_asset("report.css")),  # noqa: S704 - our own
        rejected=counted(report.rejections),
        listed=report.rejections[:MOST_LISTED],
        budget=budget_words(report.settings.budget),
        data=data_words(report.settings.data),
        outcomes=outcome_text(report.counts),
        verdict=verdict_words(report),
        final_verdict=final_verdict,
        environments=[environment_words(each) for each in report.environments],
        leaking=LEAKAGE_WARNING,
        effect_rule=EFFECT_RULE,
        pooled_rule=POOLED_RULE,
        leaking_accuracy=published("leaking-validation").accuracy,
        version=__version__,
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
        loader=PackageLoader("budgetnet.visualization.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment
