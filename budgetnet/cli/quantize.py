"""The ``budgetnet quantize`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.export import Output
from budgetnet.cli.options import Json, OwnData, RunArgument, Seed, print_json
from budgetnet.cli.parsing import check_names
from budgetnet.common.documents import parse_count

if TYPE_CHECKING:
    from rich.table import Table

    from budgetnet.exporting.quantizing import Quantized


def quantize(
    run: RunArgument,
    to: Output = None,
    calibration_images: Annotated[
        str | None,
        typer.Option(
            "--calibration-images",
            metavar="N",
            help="Number of training images from which the ranges of activations are taken. Default: 256.",
        ),
    ] = None,
    seed: Seed = 0,
    data: OwnData = None,
    as_json: Json = False,
) -> None:
    """Write a run's network as an int8 ONNX model, with its accuracy beside float32; needs the extra export."""
    images = None if calibration_images is None else parse_count(calibration_images, field="--calibration-images")
    check_names(data=data)
    from budgetnet.exporting.quantizing import quantize as quantize_run
    from budgetnet.training.progress import load_with_progress

    done = quantize_run(run, to=to, calibration_images=images, seed=seed, data=data, load=load_with_progress)
    if as_json:
        print_json(done.to_mapping())
        return
    from budgetnet.cli.tables import console

    typer.echo(f"{done.path}: {done.int8.size:,} bytes")
    console().print(_table(done))
    for line in _lines(done):
        typer.echo(line)


def _table(done: Quantized) -> Table:
    from budgetnet.cli.tables import titled_table
    from budgetnet.statistics.intervals import format_with_interval

    title = f"by ONNX Runtime on {done.int8.scores.images:,} validation images"
    table = titled_table(title, "", "accuracy % [95 %]", "weights, bytes", "file, bytes")
    for name, each in (("float32", done.float32), ("int8", done.int8)):
        accuracy = format_with_interval(each.scores.accuracy, each.scores.interval, images=each.scores.images)
        table.add_row(name, accuracy, f"{each.weight_bytes:,}", f"{each.size:,}")
    return table


def _lines(done: Quantized) -> list[str]:
    from budgetnet.common.formatting import count_of, short_p_value
    from budgetnet.exporting.quantizing import METHOD
    from budgetnet.statistics.intervals import points

    comparison = done.comparison
    only_int8, only_float32, p_value = comparison.mcnemar
    return [
        f"int8 - float32: {points(comparison.difference, comparison.interval)} percentage points (95 % interval by "
        f"Newcombe); only int8 right {only_int8:,}, only float32 {only_float32:,}, McNemar's p "
        f"{short_p_value(p_value)}",
        f"calibrated by {METHOD} on {count_of(done.calibration_images, 'training image')}, seed {done.seed}",
    ]
