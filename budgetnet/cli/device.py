"""`budgetnet device`: files of devices that networks are deployed on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.completion import completing
from budgetnet.cli.fields import Command, Group
from budgetnet.cli.options import Classes, InputShape, Json, print_json
from budgetnet.cli.parsing import read_image, read_space
from budgetnet.cli.termination import interruption
from budgetnet.common.documents import parse_count
from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    from budgetnet.devices.measure import Progress
    from budgetnet.model.deployed.device_file import DeviceFile

FileArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A device's file, from `budgetnet device measure`.", show_default=False),
]


def measure(
    to: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write, YAML or JSON.")],
    space: Annotated[
        str,
        typer.Option(
            "--space",
            metavar="SPACE",
            autocompletion=completing("SPACE"),
            help="Search space whose operations are measured: resnet, paper, mobile, regnet, or a file.",
        ),
    ] = "resnet",
    runtime: Annotated[
        str, typer.Option("--runtime", metavar="onnxruntime|torch", help="What executes networks.")
    ] = "onnxruntime",
    threads: Annotated[str, typer.Option("--threads", metavar="N", help="Threads of an operation.")] = "1",
    batch: Annotated[str, typer.Option("--batch", metavar="N", help="Images that are classified at once.")] = "1",
    input_shape: InputShape = None,
    classes: Classes = None,
    max_params: Annotated[
        str, typer.Option("--max-params", metavar="N", help="Parameters of the largest networks that are measured.")
    ] = "5M",
    max_macs: Annotated[
        str, typer.Option("--max-macs", metavar="N", help="Multiply-accumulates of the largest networks.")
    ] = "500M",
    minutes: Annotated[
        float,
        typer.Option("--minutes", metavar="N", help="Time for the operations; a minute for whole networks follows."),
    ] = 12.0,
) -> None:
    """Measure how long operations take on this machine; an interrupted measurement goes on where it stopped."""
    from budgetnet.api.device import measure_device

    if runtime not in ("onnxruntime", "torch"):
        raise InputError("--runtime", runtime, "must be onnxruntime or torch")
    numbers = {"threads": parse_count(threads, field="--threads"), "batch": parse_count(batch, field="--batch")}
    search_space, image = read_space(space), read_image(input_shape, classes)
    with interruption("what was timed is kept, run the same command to go on"), _progress_bar() as progress:
        device = measure_device(
            to,
            space=search_space,
            runtime=runtime,  # type: ignore[arg-type]
            **numbers,
            input_shape=image["input_shape"],
            num_classes=image["num_classes"],
            max_params=max_params,
            max_macs=max_macs,
            minutes=minutes,
            progress=progress,
        )
    typer.echo(f"wrote {to}")
    _print(device, to)


def check(path: FileArgument, as_json: Json = False) -> None:
    """Time three networks of a file again; exit code 2 if one takes more than 5 % longer or shorter than it took."""
    from budgetnet.api.device import check_device
    from budgetnet.common.formatting import short_seconds

    found = check_device(path)
    if as_json:
        print_json([{**each._asdict(), "moved": each.moved} for each in found])
        return
    for each in found:
        typer.echo(
            f"{each.network}: {short_seconds(each.now)}, {100 * each.moved:+.1f} % of {short_seconds(each.then)} then"
        )
    typer.echo("the file holds")


def show(path: FileArgument, as_json: Json = False) -> None:
    """Print what a file was made on, and how well it predicts."""
    from budgetnet.model.deployed.device_file import load_device

    device = load_device(path)
    if as_json:
        print_json(device.to_mapping())
    else:
        _print(device, path)


def _print(device: DeviceFile, path: Path) -> None:
    from budgetnet.common.formatting import short_seconds

    validation, calibration = device.validation, device.calibration
    shape = "x".join(map(str, device.input_shape))
    cells = sum(len(row.split()) - row.split().count("-") for each in device.operations for row in each.microseconds)
    lines = {
        "device": str(device.hardware),
        "runtime": str(device.runtime),
        "networks": f"space {device.space}, images {shape}, {device.num_classes} classes",
        "operations": f"{len(device.operations):,}, at {cells:,} numbers of channels",
        "prediction": f"{calibration.factor:.3f} x their sum {1e-3 * calibration.constant:+.3f} ms "
        f"{calibration.per_operation:+.2f} µs x their number",
        "error": f"{100 * validation.p95_error:.1f} % for 95 % of {validation.networks} networks, "
        f"median {100 * validation.median_error:.1f} %, largest {100 * validation.worst_error:.1f} %",
        "within": f"5 %: {100 * validation.within_5_percent:.0f} % of them; 10 %: "
        f"{100 * validation.within_10_percent:.0f} %",
        "ranking": f"Kendall's tau {validation.kendall_tau:.3f}; of MACs alone {validation.kendall_tau_macs:.3f}",
        "anchors": ", ".join(f"{each.spec.label} {short_seconds(each.microseconds * 1e-6)}" for each in device.anchors),
        "digest": device.digest[:12],
    }
    typer.echo(str(path))
    for name, text in lines.items():
        typer.echo(f"  {name:<11}{text}")


@contextmanager
def _progress_bar() -> Iterator[Callable[[Progress], None]]:
    """Show a bar on standard error if that is a terminal, and otherwise a line for each step."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    hidden = not sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    last = ""
    with Bars(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bars:
        task = bars.add_task("measuring", total=1.0)

        def update(progress: Progress) -> None:
            nonlocal last
            bars.update(task, description=progress.step, completed=progress.done)
            if hidden and progress.step != last:
                typer.echo(progress.step, err=True)
                last = progress.step

        yield update


device = typer.Typer(
    cls=Group,
    help="Measure a device that networks are deployed on, so that their latency can be predicted.",
    no_args_is_help=True,
)
for command in (measure, check, show):
    device.command(cls=Command)(command)
