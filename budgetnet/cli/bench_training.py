"""Verbs that measure training: ``bench train``, ``bench growth`` and ``bench profile``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from budgetnet.cli.bench_output import (
    memory,
    print_goals,
    print_machine,
    read_count,
    read_counts,
    require_seconds,
    told,
)
from budgetnet.cli.options import Device, Json, SpecArgument, Threads, compiling, print_json, read_threads
from budgetnet.model.zoo import find_spec

if TYPE_CHECKING:
    from budgetnet.bench.training import TrainBenchmark

Batch = Annotated[str | None, typer.Option("--batch", metavar="N", help="Images in a step.")]
Compile = Annotated[bool, typer.Option("--compile", help="Measure torch.compile as well: minutes of preparation.")]


def train(
    spec: SpecArgument = "reference",
    batch: Batch = None,
    device: Device = "auto",
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="N", help="About how long to measure; three steps a way at least."),
    ] = 40.0,
    threads: Threads = None,
    compiled: Compile = False,
    autotune: Annotated[bool, typer.Option(help="Whether cuDNN tries its algorithms and keeps the fastest.")] = True,
    as_json: Json = False,
) -> None:
    """How fast a network is trained, beside a plain loop with PIL and a DataLoader; in turn, on images of noise."""
    network = find_spec(spec)
    batch_size = _read_batch(batch)
    wanted = read_threads(threads)
    require_seconds(seconds)
    with told("loading torch") as tell:
        from budgetnet.bench.training import run
        from budgetnet.training.devices import choose_device

        with compiling(wanted=compiled):
            measured = run(
                network,
                device=choose_device(device),
                seconds=seconds,
                batch_size=batch_size,
                compiled=compiled,
                autotune=autotune,
                threads=wanted,
                progress=tell,
            )
    if as_json:
        print_json(measured.to_mapping())
    else:
        _print_train(measured)


def growth(
    device: Device = "auto",
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="N", help="About how long to measure a point; three samples at least."),
    ] = 1.0,
    params: Annotated[str, typer.Option("--params", metavar="N,N", help="Parameters to measure at.")] = (
        "0.1M,0.3M,1M,2M,5M"
    ),
    batches: Annotated[str, typer.Option("--batches", metavar="N,N", help="Images in a step to measure at.")] = (
        "64,128,256,512,1024"
    ),
    images: Annotated[
        str, typer.Option("--images", metavar="N,N", help="Sides of images, in pixels, to measure at.")
    ] = ("16,24,32,48,64"),
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw it: .html, .svg, .png or .json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """How the cost of a training step grows with parameters, batch and image, one varied at a time, the others at 1M,
    128 and 32.
    """  # noqa: D205 - a single sentence
    require_seconds(seconds)
    sizes = {
        "parameters": read_counts(params, field="--params", most=10_000_000),
        "batches": read_counts(batches, field="--batches", least=2, most=65_536),
        "image_sizes": read_counts(images, field="--images", least=8, most=1_024),
    }
    from rich.table import Table

    from budgetnet.bench.scaling import draw, grown
    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import short_count, short_seconds
    from budgetnet.training.devices import choose_device, describe_environment
    from budgetnet.visualization.figures import require_writable

    if plot:
        require_writable(plot, field="--plot")
    chosen = choose_device(device)
    with told("loading torch") as tell:
        points = grown(
            **sizes,
            device=chosen,
            seconds=seconds,
            progress=lambda what, done, of: tell(f"{done + 1}/{of}: {what}"),
        )
    environment = describe_environment(chosen)
    if plot:
        draw(points, plot)
    if as_json:
        rows = [{**point._asdict(), "speed": point.speed.to_mapping()} for point in points]
        print_json({"benchmark": "growth", "environment": environment, "rows": rows})
        return
    table = Table(title="Training step, one of three sizes varied at a time", title_justify="left")
    for heading in ("params", "batch", "image", "step", "min", "max", "images/s", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, point in enumerate(points):
        speed = point.speed
        table.add_row(
            short_count(point.params),
            str(point.batch_size),
            str(point.image_size),
            *(short_seconds(time) for time in speed.seconds_per_step[:3]),
            f"{speed.images_per_second:,.0f}",
            memory(speed.peak_memory),
            end_section=number + 1 < len(points) and points[number + 1].axis != point.axis,
        )
    output = console()
    output.print(table)
    print_machine(output, environment)


def profile(
    spec: SpecArgument = "reference",
    batch: Batch = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Where the time of a training step goes, by class of work: convolution, batch norm, optimiser and so on."""
    network = find_spec(spec)
    batch_size = _read_batch(batch)
    # Read when torch is loaded: the profiler's own log would otherwise call a machine without a GPU an error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from rich.table import Table

    from budgetnet.bench.measure import Task, measure
    from budgetnet.bench.profile import finished, fixed_seconds, profiled
    from budgetnet.bench.variants import Setting, learning
    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import percent, short_seconds
    from budgetnet.runs.recipe import Recipe
    from budgetnet.training.devices import choose_device, choose_precision, describe_environment
    from budgetnet.training.step import Execution

    chosen = choose_device(device)
    batch_size = batch_size or (32 if chosen.type == "cpu" else 128)
    setting = Setting(network, Recipe(), batch_size, chosen)
    with told(f"steps of {batch_size} images under torch's profiler"):
        # Replayed, a step is a single launch, and tells nothing of its parts on some versions of the profiler.
        way: dict[str, Any] = {"precision": choose_precision("auto", chosen), "execution": Execution(record=False)}
        found = profiled(learning(setting, **way), device=chosen)
        times = {
            name: Task(partial(finished, learning(setting._replace(batch_size=size), **way), device=chosen))
            for name, size in (("all images", batch_size), ("two images", 2))
        }
        measured = measure(times, seconds=2)
    environment = describe_environment(chosen)
    if as_json:
        rows = [share._asdict() for share in found.shares]
        facts = {"network": network.label, "batch_size": batch_size, "seconds_per_step": found.seconds_per_step}
        facts |= {"wall": {name: times._asdict() for name, times in measured.items()}}
        print_json({"benchmark": "profile", "environment": environment, **facts, "rows": rows})
        return
    title = f"{network.label}, {batch_size} images: {short_seconds(found.seconds_per_step)} of work a step"
    table = Table(title=title, title_justify="left")
    table.add_column("class of work", no_wrap=True)
    for heading in ("a step", "share, %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("most in", overflow="ellipsis", no_wrap=True, max_width=26)
    for share in found.shares:
        table.add_row(share.work, short_seconds(share.seconds_per_step), percent(share.share), share.largest)
    output = console()
    output.print(table)
    whole, two = (times.median for times in measured.values())
    fixed = fixed_seconds(whole, two, batch_size=batch_size)
    output.print(
        f"by the clock, without the profiler: {short_seconds(whole)} a step, {short_seconds(two)} for two images"
    )
    output.print(
        f"so {short_seconds(fixed)}, {percent(fixed / whole)} %, are for no image: Python, launching, the optimiser"
    )
    print_machine(output, environment)


def _read_batch(text: str | None) -> int | None:
    return None if text is None else read_count(text, field="--batch", least=2, most=65_536)


def _print_train(measured: TrainBenchmark) -> None:
    from rich.table import Table

    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import short_count, short_seconds

    spec, device = measured.spec, measured.environment["device"]
    batch_size = measured.speeds[0].batch_size
    title = f"{spec.label}, {short_count(spec.params)} parameters, {batch_size} images a step, on {device}"
    table = Table(title=title, title_justify="left")
    table.add_column("way", no_wrap=True)
    for heading in ("step", "min", "max", "images/s", "ratio", "peak %", "GB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for speed in measured.speeds:
        times, ratio = speed.seconds_per_step, measured.ratios.get(speed.variant)
        table.add_row(
            speed.variant.removeprefix("budgetnet, "),
            *(short_seconds(time) for time in times[:3]),
            f"{speed.images_per_second:,.1f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{100 * speed.share_of_peak:.1f}",
            memory(speed.peak_memory).removesuffix(" GB"),
            style="green" if speed is measured.speeds[-1] else None,
        )
    output = console()
    output.print(table)
    output.print(f"{measured.speeds[-1].precision} is this device's own precision; medians of steps made in turn")
    output.print("peak %: multiply-accumulates over those of a large matrix product (MFU); GB: peak memory")
    if measured.settings_gain is not None:
        output.print("plain loop and untuned: in a process of their own with BUDGETNET_CPU_SETTINGS=off, on all cores")
        output.print(f"budgetnet is {measured.settings_gain:.2f} times as fast as untuned")
    print_goals(output, measured.goals)
    print_machine(output, measured.environment)
