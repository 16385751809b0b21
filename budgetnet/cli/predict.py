"""The verb that asks a trained network about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.options import Device, Json, RunArgument, print_json
from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from budgetnet.evaluation.predict import Prediction


def predict(
    run: RunArgument,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="Pictures of any size: PNG, JPEG, ...", show_default=False),
    ],
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="So many of the likeliest classes.")] = 3,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """What a run's network says of pictures; those that cannot be read are named, and it ends with 2."""
    from budgetnet.api.evaluation import predict as predict_images

    said = predict_images(run, images, device=device)
    record, names = said.record, said.class_names
    for each in said:
        if each.error is not None:
            typer.echo(f"error: {each.error}", err=True)
    if as_json:
        views = record.identity.recipe.views
        print_json({"run": str(record.folder), "views": views, "images": [_mapping(each, names, top) for each in said]})
    elif any(each.error is None for each in said):
        from budgetnet.cli.tables import console

        console().print(_table(said, names, top))
    if any(each.error is not None for each in said):
        raise typer.Exit(InputError.exit_code)


def _mapping(said: Prediction, names: Sequence[str], top: int) -> dict[str, object]:
    likeliest = [
        {"number": number, "class": names[number], "probability": probability}
        for number, probability in said.top_classes(top)
    ]
    rule = None if said.error is None else said.error.rule
    return {"image": str(said.path), "error": rule, "predictions": likeliest}


def _table(said: Sequence[Prediction], names: Sequence[str], top: int) -> Table:
    """One line for each picture and class."""
    from rich.table import Table
    from rich.text import Text

    from budgetnet.common.formatting import percent

    table = Table("image", "class", "probability %")
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    for each in said:
        for place, (number, probability) in enumerate(each.top_classes(top)):
            style = "bold" if place == 0 else ""
            picture = "" if place else str(each.path)
            table.add_row(Text(picture), Text(names[number], style), Text(percent(probability), style))
    return table
