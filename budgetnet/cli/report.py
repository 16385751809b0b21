"""The ``budgetnet report`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from budgetnet.cli.completion import completing
from budgetnet.cli.options import Out, Storage


def report(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]",
            autocompletion=completing("[STUDY]"),
            help="Name of the study. Default: the most recent one.",
        ),
    ] = None,
    to: Annotated[
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

    written = write_report(
        study, to=to, out=out, storage=storage, ablations=ablation or (), reproductions=reproduction or ()
    )
    typer.echo(f"{written.study}: {written.path}")
