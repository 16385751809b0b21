"""The verb that writes a study as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from budgetnet.cli.options import Out, Storage
from budgetnet.common.errors import InputError


def report(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Name of the study; the last one worked on if left out.")
    ] = None,
    page: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.html", help="The page; one that is there is replaced.")
    ] = Path("report.html"),
    out: Out = Path("runs"),
    storage: Storage = None,
    ablation: Annotated[
        list[Path] | None,
        typer.Option(
            "--ablation", metavar="DIR", help="Show an ablation: its study.yaml and the runs beside it; again for more."
        ),
    ] = None,
    reproduction: Annotated[
        list[Path] | None,
        typer.Option(
            "--reproduction", metavar="DIR", help="Show what these runs say of published results; again for more."
        ),
    ] = None,
) -> None:
    """Write a study as one HTML page that needs no network: ranking, front, curves, verdicts, and how it was made."""
    from budgetnet.api.report import report as write_report

    try:
        written = write_report(
            study, to=page, out=out, storage=storage, ablations=ablation or (), reproductions=reproduction or ()
        )
    except InputError as error:
        raise InputError("-o" if error.field == "to" else error.field, error.value, error.rule) from None
    typer.echo(f"{written.study}: {written.path}")
