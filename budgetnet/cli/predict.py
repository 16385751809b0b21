"""The ``budgetnet predict`` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.options import Device, Json, RunArgument, print_json
from budgetnet.cli.parsing import check_names
from budgetnet.common.errors import InputError
from budgetnet.common.files import require_file_place, resolved, write_text
from budgetnet.common.formatting import count_of
from budgetnet.runs.run_files import require_no_run_file

if TYPE_CHECKING:
    from rich.table import Table

    from budgetnet.evaluation.predict import Prediction


def predict(
    run: RunArgument,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE",
            help="Image files of any size (PNG, JPEG, ...), folders of them, .npz files with an array `images`, or "
            "quoted patterns.",
            show_default=False,
        ),
    ],
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write the predictions with all probabilities to FILE instead."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="Write the number of each image and of its class: ID,Labels."),
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="Number of classes to show.")] = 3,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Predict the classes of images; exit code 2 if one cannot be read."""
    check_names(device=device)
    for option, path in (("--csv", csv), ("--labels", labels)):
        if path is not None:
            require_file_place(path, field=option)
            require_no_run_file(path, field=option)
            if resolved(path) in map(resolved, images):
                raise InputError(option, str(path), "must be another file than the images")
    if csv is not None and labels is not None and resolved(csv) == resolved(labels):
        raise InputError("--labels", str(labels), "must be another file than that of --csv")
    from budgetnet.api.evaluation import predict as predict_images

    predictions = predict_images(run, images, device=device)
    record, names = predictions.record, predictions.class_names
    for each in predictions:
        if each.error is not None:
            typer.echo(f"error: {each.error}", err=True)
    if csv is not None:
        write_text(csv, predictions.to_csv())
        unread = sum(each.error is not None for each in predictions)
        typer.echo(f"wrote {count_of(len(predictions) - unread, 'prediction')} to {csv}", err=as_json)
    if labels is not None:
        write_text(labels, predictions.to_labels())
        typer.echo(f"wrote {count_of(len(predictions), 'label')} to {labels}", err=as_json)
    if as_json:
        views = record.identity.recipe.views
        shown = [_mapping(each, names, top) for each in predictions]
        print_json({"run": str(record.folder), "views": views, "images": shown})
    elif csv is None and labels is None and any(each.error is None for each in predictions):
        from budgetnet.cli.tables import console

        console().print(_table(predictions, names, top))
    if any(each.error is not None for each in predictions):
        raise typer.Exit(InputError.exit_code)


def _mapping(prediction: Prediction, names: Sequence[str], top: int) -> dict[str, object]:
    classes = [
        {"number": number, "class": names[number], "probability": probability}
        for number, probability in prediction.top_classes(top)
    ]
    rule = None if prediction.error is None else prediction.error.rule
    return {"image": prediction.image, "error": rule, "predictions": classes}


def _table(predictions: Sequence[Prediction], names: Sequence[str], top: int) -> Table:
    """Return a table with one row for each image and class."""
    from rich.table import Table
    from rich.text import Text

    from budgetnet.common.formatting import percent

    table = Table("image", "class", "probability %")
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    for each in predictions:
        for place, (number, probability) in enumerate(each.top_classes(top)):
            style = "bold" if place == 0 else ""
            image = "" if place else each.image
            table.add_row(Text(image), Text(names[number], style), Text(percent(probability), style))
    return table
