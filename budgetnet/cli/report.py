"""The ``budgetnet report`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from budgetnet.cli.options import Out, Storage
from budgetnet.common.errors import InputError


def report(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Name of the study. Default: the most recent one.")
    ] = None,
    page: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE.html", help="HTML file to write; an existing file is replaced."),
    ] = Path("report.html"),
    out: Out = Path("runs"),
    storage: Storage = None,
    ablation: Annotated[
        list[Path] | None,
        typer.Option(
            "--ablation", metavar="DIR", help="Folder of ablations to include, or of their runs; may be repeated."
        ),
    ] = None,
    reproduction: Annotated[
        list[Path] | None,
        typer.Option("--reproduction", metavar="DIR", help="Runs to compare with published results; may be repeated."),
    ] = None,
) -> None:
    """Write a study, or only ablations and reproductions, as a self-contained HTML page."""
    from budgetnet.api.report import report as write_report

    try:
        written = write_report(
            study, to=page, out=out, storage=storage, ablations=ablation or (), reproductions=reproduction or ()
        )
    except InputError as error:
        raise InputError("-o" if error.field == "to" else error.field, error.value, error.rule) from None
    typer.echo(f"{written.study}: {written.path}")
