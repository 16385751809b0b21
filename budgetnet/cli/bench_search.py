"""Verbs that measure what surrounds training: ``bench workers``, ``bench search`` and ``bench start``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

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
from budgetnet.cli.options import (
    Data,
    Device,
    Epochs,
    Json,
    MaxParams,
    SpecArgument,
    print_json,
    read_budget,
    read_recipe,
)
from budgetnet.common.documents import parse_count
from budgetnet.model.zoo import find_spec

if TYPE_CHECKING:
    from rich.table import Table

    from budgetnet.bench.search import SearchBenchmark, Spread
    from budgetnet.bench.startup import StartBenchmark
    from budgetnet.bench.workers import WorkersBenchmark

IMPORTED_BY_TRAIN = (
    "budgetnet.cli.main",
    "budgetnet.training.progress",
    "budgetnet.cli.tables",
    "budgetnet.training.devices",
    "budgetnet.statistics.intervals",
    "budgetnet.training.threads",
    "budgetnet.training.trainer",
    "budgetnet.data.training_data",
)

"""What ``budgetnet train`` imports before it loads data, besides what these import themselves."""


def workers(
    counts: Annotated[
        str, typer.Option("--workers", metavar="N,...", help="Numbers of processes; one is always measured.")
    ] = "1,2,4",
    params: Annotated[
        str, typer.Option("--params", metavar="N,...", help="Parameters of the networks, or as near as can be.")
    ] = "0.3M,1M,5M",
    batch: Annotated[
        str | None, typer.Option("--batch", metavar="N", help="Images in a step. Left out: 128, or 32 on a CPU.")
    ] = None,
    device: Device = "auto",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="N", help="How long each number of processes trains each network.")
    ] = 5.0,
    as_json: Json = False,
) -> None:
    """Whether training several networks at once, each in its own process, trains on more images a second in all."""
    wanted = read_counts(counts, field="--workers", most=64)
    sizes = read_counts(params, field="--params", most=10**18)
    batch_size = None if batch is None else read_count(batch, field="--batch", least=2, most=65_536)
    require_seconds(seconds)
    with told("loading torch") as tell:
        from budgetnet.bench.workers import run
        from budgetnet.training.devices import choose_device

        chosen = choose_device(device)
        measured = run(
            parameters=sizes, workers=wanted, device=chosen, seconds=seconds, batch_size=batch_size, progress=tell
        )
    if as_json:
        print_json(measured.to_mapping())
    else:
        _print_workers(measured)


def search(
    trials: Annotated[str, typer.Option("--trials", metavar="N", help="Candidates to train.")] = "3",
    max_params: MaxParams = "5M",
    data: Data = "digits",
    epochs: Epochs = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """How many candidates an hour a search trains, and what the search itself takes; in a temporary folder."""
    wanted = parse_count(trials, field="--trials")
    budget = read_budget(max_params, None, None)
    recipe = read_recipe(None, data=data, epochs=epochs)
    with told("loading torch") as tell:
        from budgetnet.bench.search import run
        from budgetnet.data import load_dataset
        from budgetnet.training.devices import choose_device

        chosen = choose_device(device)
        tell(f"loading {data}")
        dataset = load_dataset(data)
        measured = run(dataset, recipe, budget=budget, device=chosen, trials=wanted, progress=tell)
    if as_json:
        print_json(measured.to_mapping())
    else:
        _print_search(measured)


def start(
    spec: SpecArgument = "reference",
    data: Data = "digits",
    device: Device = "auto",
    repeat: Annotated[str, typer.Option("--repeat", metavar="N", help="How many times to start.")] = "3",
    as_json: Json = False,
) -> None:
    """How long `budgetnet train` takes to the end of its first training step, part by part, in fresh interpreters."""
    network = find_spec(spec)
    recipe = read_recipe(None, data=data, epochs=None)
    times = read_count(repeat, field="--repeat", most=1000)
    with told("loading torch") as tell:
        from budgetnet.bench.startup import run
        from budgetnet.data import load_dataset
        from budgetnet.training.devices import choose_device

        chosen = choose_device(device)
        tell(f"loading {data}")
        # Once before the clock runs: whatever is wrong with it is told here, and what it keeps for later is in place.
        dataset = load_dataset(data)
        network = network.replace(input_shape=dataset.input_shape, num_classes=dataset.num_classes, name=network.name)
        measured = run(
            network, recipe, data=data, device=chosen, repeat=times, imports=IMPORTED_BY_TRAIN, progress=tell
        )
    if as_json:
        print_json(measured.to_mapping())
    else:
        _print_start(measured)


def _print_workers(measured: WorkersBenchmark) -> None:
    from rich.table import Table

    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import short_count

    device = measured.environment["device"]
    title = f"Processes that train at once on one {device}, {measured.batch_size} images a step, {measured.precision}"
    table = Table(title=title, title_justify="left")
    for heading in ("params", "at once", "threads", "images/s", "ratio", "slowest", "fastest", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, run in enumerate(measured.runs):
        following = measured.runs[number + 1 : number + 2]
        speeds = [process.images_per_second for process in run.processes]
        table.add_row(
            short_count(run.spec.params),
            str(len(run.processes)),
            "" if run.threads is None else str(run.threads),
            *(f"{run.images_per_second:,.0f}", f"{measured.ratio(run):.2f}"),
            *(f"{speed:,.0f}" for speed in (min(speeds), max(speeds))),
            memory(run.peak_memory),
            end_section=any(other.spec != run.spec for other in following),
        )
    output = console()
    output.print(table)
    output.print("images/s: of all processes together; ratio: to one process; threads: of each")
    output.print("slowest, fastest: images/s of a single process; memory: of the one with most")
    print_machine(output, measured.environment)


def _print_search(measured: SearchBenchmark) -> None:
    from rich.table import Table

    from budgetnet.bench.search import KNOWN, summed_up
    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import percent, short_count, short_seconds

    settings = measured.settings
    table = Table(title=f"A search on {settings.data.name}, on {settings.device}", title_justify="left")
    table.add_column("candidate", overflow="ellipsis", no_wrap=True, max_width=34)
    for heading in ("params", "epochs", "training", "in all"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in measured.candidates:
        times = (short_seconds(each.training_seconds), short_seconds(each.seconds))
        table.add_row(each.architecture, short_count(each.params), str(each.epochs), *times)
    output = console()
    output.print(table)
    output.print(
        f"{measured.candidates_per_hour:,.0f} candidates an hour; "
        f"{len(measured.candidates)} trained, {measured.turned_away} turned away over budget"
    )
    output.print(
        f"besides training: {short_seconds(measured.overhead)} a trained candidate, "
        f"{percent(measured.overhead_share)} % of the search"
    )
    titles = {
        f"Turning {len(measured.turning_away)} candidates away over budget": measured.turning_away,
        f"The search's own share of {len(measured.late)} candidates behind {KNOWN:,} others": measured.late,
    }
    for heading, candidates in titles.items():
        output.print(_bookkeeping_table(heading, summed_up(candidates)))
    print_goals(output, measured.goals)
    print_machine(output, measured.environment, packages=("torch", "optuna"))


def _bookkeeping_table(title: str, parts: Mapping[str, Spread]) -> Table:
    from rich.table import Table

    from budgetnet.common.formatting import short_seconds

    table = Table(title=title, title_justify="left")
    table.add_column("part", no_wrap=True)
    for heading in ("median", "min", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part, spread in parts.items():
        table.add_row(part, *(short_seconds(time) for time in spread))
    return table


def _print_start(measured: StartBenchmark) -> None:
    from rich.table import Table

    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import short_seconds

    device = measured.environment["device"]
    table = Table(title="From the command to the first step", title_justify="left")
    table.add_column("part", no_wrap=True)
    for heading in ("median", "min", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part, times in measured.parts.items():
        name = part.replace("_", " ")
        table.add_row(name, *(short_seconds(time) for time in times.values()), style="bold" if part == "total" else "")
    output = console()
    output.print(table)
    output.print(f"{measured.spec.label} on {measured.data}, on {device}")
    output.print(
        f"{len(measured.starts)} fresh interpreters, one behind the other; the files are in the system's cache"
    )
    print_goals(output, measured.goals)
    print_machine(output, measured.environment)
