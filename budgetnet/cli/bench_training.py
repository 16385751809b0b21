"""`budgetnet bench train`, `growth`, `profile` and `workers` commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.api.inputs import network_of
from budgetnet.cli.bench_output import (
    make_table,
    memory,
    print_goals,
    print_result,
    read_batch,
    read_counts,
    require_seconds,
    show_progress,
)
from budgetnet.cli.options import Device, Json, SpecArgument, Threads
from budgetnet.cli.parsing import compiling, read_threads

if TYPE_CHECKING:
    from rich.console import Console

    from budgetnet.bench.profile import ProfileBenchmark
    from budgetnet.bench.scaling import ScalingBenchmark
    from budgetnet.bench.training import TrainBenchmark
    from budgetnet.bench.workers import WorkersBenchmark

Batch = Annotated[str | None, typer.Option("--batch", metavar="N", help="Images per step.")]


def train(
    spec: SpecArgument = "reference",
    batch: Batch = None,
    device: Device = "auto",
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="N", help="Approximate duration; at least three samples per variant."),
    ] = 40.0,
    threads: Threads = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Measure torch.compile as well; compilation takes minutes.")
    ] = False,
    autotune: Annotated[bool, typer.Option(help="Whether cuDNN benchmarks its algorithms.")] = True,
    as_json: Json = False,
) -> None:
    """Measure training speed on random images, compared with a plain loop of PIL and a DataLoader."""
    network = network_of(spec)
    batch_size = read_batch(batch)
    wanted = read_threads(threads)
    require_seconds(seconds)
    with show_progress() as progress:
        from budgetnet.bench.training import run
        from budgetnet.training.devices import choose_device

        with compiling(wanted=compiled):
            result = run(
                network,
                device=choose_device(device),
                seconds=seconds,
                batch_size=batch_size,
                compiled=compiled,
                autotune=autotune,
                threads=wanted,
                progress=progress,
            )
    print_result(result, _print_train, as_json=as_json)


def growth(
    device: Device = "auto",
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="N", help="Approximate duration per point; at least three samples."),
    ] = 1.0,
    params: Annotated[str, typer.Option("--params", metavar="N,N", help="Numbers of parameters.")] = (
        "0.1M,0.3M,1M,2M,5M"
    ),
    batches: Annotated[str, typer.Option("--batches", metavar="N,N", help="Batch sizes.")] = "64,128,256,512,1024",
    images: Annotated[
        str, typer.Option("--images", metavar="N,N", help="Image sizes: sides of square images, in pixels.")
    ] = "16,24,32,48,64",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Save a figure: .html, .svg, .png or .json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a training step by parameters, batch size and image size, one varied at a time (others: 1M, 128, 32)."""
    require_seconds(seconds)
    sizes = {
        "parameters": read_counts(params, field="--params", most=10**18),
        "batches": read_counts(batches, field="--batches", least=2, most=65_536),
        "image_sizes": read_counts(images, field="--images", least=8, most=1_024),
    }
    from budgetnet.bench.scaling import run, scaling_figure
    from budgetnet.training.devices import choose_device
    from budgetnet.visualization.figures import require_writable, write_figure

    if plot:
        require_writable(plot, field="--plot")
    with show_progress() as progress:
        result = run(**sizes, device=choose_device(device), seconds=seconds, progress=progress)
    if plot:
        write_figure(scaling_figure(result.points), plot, field="--plot")
    print_result(result, _print_growth, as_json=as_json)


def profile(
    spec: SpecArgument = "reference",
    batch: Batch = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a training step by class of work: convolution, batch norm, optimiser and others."""
    network = network_of(spec)
    batch_size = read_batch(batch)
    # Read when torch is loaded: otherwise the profiler logs an error on machines without a GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with show_progress() as progress:
        from budgetnet.bench.profile import run
        from budgetnet.training.devices import choose_device

        result = run(network, device=choose_device(device), batch_size=batch_size, progress=progress)
    print_result(result, _print_profile, as_json=as_json)


def workers(
    counts: Annotated[
        str, typer.Option("--workers", metavar="N,...", help="Numbers of processes; one is always measured.")
    ] = "1,2,4",
    params: Annotated[
        str, typer.Option("--params", metavar="N,...", help="Numbers of parameters; the closest networks are used.")
    ] = "0.3M,1M,5M",
    batch: Annotated[
        str | None, typer.Option("--batch", metavar="N", help="Images per step. Default: 128, or 32 on a CPU.")
    ] = None,
    device: Device = "auto",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="N", help="Duration per network and number of processes.")
    ] = 5.0,
    as_json: Json = False,
) -> None:
    """Measure the total training speed of several processes that each train a network at the same time."""
    numbers = read_counts(counts, field="--workers", most=64)
    sizes = read_counts(params, field="--params", most=10**18)
    batch_size = read_batch(batch)
    require_seconds(seconds)
    with show_progress() as progress:
        from budgetnet.bench.workers import run
        from budgetnet.training.devices import choose_device

        chosen = choose_device(device)
        result = run(
            parameters=sizes, workers=numbers, device=chosen, seconds=seconds, batch_size=batch_size, progress=progress
        )
    print_result(result, _print_workers, as_json=as_json)


def _print_train(output: Console, result: TrainBenchmark) -> None:
    from budgetnet.common.formatting import short_count, short_seconds

    spec, default = result.spec, result.speeds[-1]
    table = make_table(
        f"{spec.label}, {short_count(spec.params)} parameters, batch size {default.batch_size}, "
        f"on {result.environment['device']}",
        text=("variant",),
        numbers=("step", "min", "max", "img/s", "ratio", "peak %", "GB"),
    )
    for speed in result.speeds:
        ratio = result.ratios.get(speed.variant)
        table.add_row(
            speed.variant.removeprefix("budgetnet, "),
            *(short_seconds(time) for time in speed.seconds_per_step[:3]),
            f"{speed.images_per_second:,.{1 if speed.images_per_second < 1_000 else 0}f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{100 * speed.share_of_peak:.1f}",
            "" if speed.peak_memory is None else f"{speed.peak_memory / 1e9:.2f}",
            style="green" if speed is default else None,
        )
    output.print(table)
    output.print(f"median of alternating steps; default precision of this device: {default.precision}")
    output.print("img/s: images per second; ratio: to the plain loop; GB: peak memory")
    output.print("peak %: multiply-accumulates relative to a large matrix product (MFU)")
    if result.settings_gain is not None:
        output.print("plain loop, untuned: separate process, BUDGETNET_CPU_SETTINGS=off, all cores")
        output.print(f"budgetnet is {result.settings_gain:.2f} times as fast as untuned")
    print_goals(output, result.goals)


def _print_growth(output: Console, result: ScalingBenchmark) -> None:
    from budgetnet.common.formatting import short_count, short_seconds

    table = make_table(
        "Training step by parameters, batch size and image size",
        numbers=("params", "batch", "image", "step", "min", "max", "images/s", "memory"),
    )
    points = result.points
    for number, point in enumerate(points, 1):
        speed = point.speed
        table.add_row(
            short_count(point.params),
            str(point.batch_size),
            str(point.image_size),
            *(short_seconds(time) for time in speed.seconds_per_step[:3]),
            f"{speed.images_per_second:,.0f}",
            memory(speed.peak_memory),
            end_section=number < len(points) and points[number].axis != point.axis,
        )
    output.print(table)


def _print_profile(output: Console, result: ProfileBenchmark) -> None:
    from budgetnet.common.formatting import percent, short_seconds

    found = result.profile
    table = make_table(
        f"{result.spec.label}, batch size {result.batch_size}: {short_seconds(found.seconds_per_step)} per step",
        text=("class of work",),
        numbers=("step", "share, %"),
    )
    table.add_column("largest operation", overflow="ellipsis", no_wrap=True, max_width=26)
    for share in found.shares:
        table.add_row(share.work, short_seconds(share.seconds_per_step), percent(share.share), share.largest)
    output.print(table)
    whole, two = (times.median for times in result.wall.values())
    fixed = result.fixed_seconds
    output.print(
        f"wall time without the profiler: {short_seconds(whole)} per step, {short_seconds(two)} for two images"
    )
    output.print(
        f"independent of the batch size: {short_seconds(fixed)}, {percent(fixed / whole)} % "
        "(Python, kernel launches, optimiser)"
    )


def _print_workers(output: Console, result: WorkersBenchmark) -> None:
    from budgetnet.common.formatting import short_count

    device = result.environment["device"]
    table = make_table(
        f"Training processes on one {device}, batch size {result.batch_size}, {result.precision}",
        numbers=("params", "workers", "threads", "images/s", "ratio", "slowest", "fastest", "memory"),
    )
    for number, run in enumerate(result.runs, 1):
        speeds = [process.images_per_second for process in run.processes]
        table.add_row(
            short_count(run.spec.params),
            str(len(run.processes)),
            "" if run.threads is None else str(run.threads),
            *(f"{run.images_per_second:,.0f}", f"{result.ratio(run):.2f}"),
            *(f"{speed:,.0f}" for speed in (min(speeds), max(speeds))),
            memory(run.peak_memory),
            end_section=any(other.spec != run.spec for other in result.runs[number : number + 1]),
        )
    output.print(table)
    output.print("images/s: sum over processes; ratio: to one process; threads: per process")
    output.print("slowest, fastest: images/s of a single process; memory: largest of a process")
