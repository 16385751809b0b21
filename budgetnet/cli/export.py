"""The ``budgetnet export`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from budgetnet.cli.options import Json, OwnData, RunArgument, print_json
from budgetnet.cli.parsing import check_names, one_of
from budgetnet.exporting.formats import FORMATS

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="PATH", help="File or folder to write to. Default: named after the run, here."
    ),
]


def export(
    run: RunArgument,
    format: Annotated[  # noqa: A002 - the name of the option, which errors say
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="File format: safetensors, onnx (needs the extra export), torch-export or python.",
        ),
    ],
    to: Output = None,
    data: OwnData = None,
    as_json: Json = False,
) -> None:
    """Export a run's network to a file usable without budgetnet, after checking that its predictions are the same."""
    (chosen,) = [each for each in FORMATS if each == one_of(format, FORMATS, field="--format")]
    check_names(data=data)
    from budgetnet.exporting.exporting import export as export_run
    from budgetnet.training.progress import load_with_progress

    done = export_run(run, format=chosen, to=to, data=data, load=load_with_progress)
    if as_json:
        print_json({**done._asdict(), "paths": [str(path) for path in done.paths]})
        return
    for path in done.paths:
        typer.echo(f"{path}: {path.stat().st_size:,} bytes")
    typer.echo(
        f"verified on {done.images:,} {done.compared_on}: the same predictions as the run's network, "
        f"logits differ by at most {done.difference:.1e}"
    )
