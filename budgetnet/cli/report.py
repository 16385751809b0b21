"""The verb that writes a study as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from budgetnet.cli.options import Out, Storage


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
    from budgetnet.visualization.report import collect, require_page, write_report

    require_page(page, field="-o")
    from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors

    kept = open_storage(storage or default_storage(out), create=False)
    with storage_errors(str(kept.url)):
        found = find_study(kept, study)
        collected = collect(found, out=out, storage=storage, ablations=ablation or (), reproductions=reproduction or ())
    write_report(collected, page)
    typer.echo(f"{collected.study}: {page}")
