"""The verb that makes a trained network usable without budgetnet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from budgetnet.cli.options import Json, OwnData, RunArgument, one_of, print_json
from budgetnet.common.errors import InputError


def export(
    run: RunArgument,
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="safetensors, onnx (extra: export), torch-export or python."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="The file, or its folder; here, by the run's name, if left out."
        ),
    ] = None,
    data: OwnData = None,
    as_json: Json = False,
) -> None:
    """Write a run's network into a file that needs no budgetnet; it is loaded back and compared first."""
    from budgetnet.export import FORMATS
    from budgetnet.export import export as export_run
    from budgetnet.training.progress import load_with_progress

    (chosen,) = [each for each in FORMATS if each == one_of(form, FORMATS, field="--format")]
    try:
        done = export_run(run, format=chosen, to=out, data=data, load=load_with_progress)
    except InputError as error:
        option = {"to": "--output", "format": "--format"}.get(error.field)
        if option is None:
            raise
        raise InputError(option, error.value, error.rule) from None
    if as_json:
        print_json({**done._asdict(), "paths": [str(path) for path in done.paths]})
        return
    for path in done.paths:
        typer.echo(f"{path}: {path.stat().st_size:,} bytes")
    typer.echo(
        f"loaded back and asked about {done.images:,} {done.compared_on}: the same predictions as the run's network, "
        f"logits differ by at most {done.difference:.1e}"
    )
