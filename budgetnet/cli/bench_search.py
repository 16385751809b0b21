"""`budgetnet bench search` and `budgetnet bench start` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.api.inputs import network_of
from budgetnet.cli.bench_output import make_table, print_goals, print_result, read_count, show_progress
from budgetnet.cli.options import Data, Device, Epochs, Json, MaxParams, SpecArgument
from budgetnet.cli.parsing import read_budget, read_recipe
from budgetnet.common.documents import parse_count
from budgetnet.study.config import SearchConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table

    from budgetnet.bench.driver import DriverBenchmark
    from budgetnet.bench.measure import Spread
    from budgetnet.bench.search import SearchBenchmark
    from budgetnet.bench.startup import StartBenchmark

TRAIN_IMPORTS = (
    "budgetnet.cli.main",
    "budgetnet.api.training",
    "budgetnet.training.progress",
    "budgetnet.cli.tables",
    "budgetnet.training.devices",
    "budgetnet.statistics.intervals",
    "budgetnet.training.threads",
    "budgetnet.training.trainer",
    "budgetnet.data.training_data",
)
"""Modules that ``budgetnet train`` imports before it loads data, besides those that they import."""


def search(
    trials: Annotated[str, typer.Option("--trials", metavar="N", help="Candidates to train.")] = "3",
    max_params: MaxParams = "5M",
    data: Data = "digits",
    epochs: Epochs = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure candidates per hour and the overhead of a search, in a temporary folder."""
    number = parse_count(trials, field="--trials")
    budget = read_budget(max_params=max_params)
    recipe = read_recipe(None, data=data, epochs=epochs)
    with show_progress() as progress:
        from budgetnet.bench.search import run
        from budgetnet.data import load_dataset
        from budgetnet.training.devices import choose_device

        chosen = choose_device(device)
        progress(f"loading {data}")
        dataset = load_dataset(data)
        result = run(dataset, recipe, budget=budget, device=chosen, trials=number, progress=progress)
    print_result(result, _print_search, as_json=as_json, packages=("torch", "optuna"))


def driver(
    workers: Annotated[str, typer.Option("--workers", metavar="N", help="Simulated workers.")] = "1000",
    earlier: Annotated[str, typer.Option("--earlier", metavar="N", help="Trials that the study has before.")] = "1000",
    candidates: Annotated[str, typer.Option("--candidates", metavar="N", help="Candidates to train.")] = "3000",
    seconds: Annotated[str, typer.Option("--seconds", metavar="N", help="Simulated seconds of a candidate.")] = "60",
    sampler: Annotated[str, typer.Option("--sampler", metavar="NAME", help="Sampler of the search.")] = "random",
    pruner: Annotated[str, typer.Option("--pruner", metavar="NAME", help="Pruner of the search.")] = "asha",
    as_json: Json = False,
) -> None:
    """Measure the driver of a search with many simulated workers: CPU time per candidate, and idle workers."""
    counts = {
        "workers": parse_count(workers, field="--workers"),
        "earlier": parse_count(earlier, field="--earlier"),
        "candidates": parse_count(candidates, field="--candidates"),
        "candidate_seconds": parse_count(seconds, field="--seconds"),
    }
    config = SearchConfig.from_mapping({"sampler": sampler, "pruner": pruner})
    with show_progress() as progress:
        from budgetnet.bench.driver import run

        result = run(**counts, sampler=config.sampler, pruner=config.pruner, progress=progress)
    print_result(result, _print_driver, as_json=as_json)


def start(
    spec: SpecArgument = "reference",
    data: Data = "digits",
    device: Device = "auto",
    repeat: Annotated[str, typer.Option("--repeat", metavar="N", help="Number of starts.")] = "3",
    as_json: Json = False,
) -> None:
    """Measure `budgetnet train` up to the end of its first training step, by phase, in fresh interpreters."""
    network = network_of(spec)
    recipe = read_recipe(None, data=data, epochs=None)
    times = read_count(repeat, field="--repeat", most=1000)
    with show_progress() as progress:
        from budgetnet.bench.startup import run
        from budgetnet.data import load_dataset
        from budgetnet.training.devices import choose_device

        chosen = choose_device(device)
        progress(f"loading {data}")
        # Loaded once before the measurement, so that errors show here and downloads and caches are in place.
        dataset = load_dataset(data)
        network = network.adapted(input_shape=dataset.input_shape, num_classes=dataset.num_classes)
        result = run(network, recipe, data=data, device=chosen, repeat=times, imports=TRAIN_IMPORTS, progress=progress)
    print_result(result, _print_start, as_json=as_json)


def _print_search(output: Console, result: SearchBenchmark) -> None:
    from budgetnet.bench.search import KNOWN, summarise
    from budgetnet.common.formatting import percent, short_count, short_seconds

    settings = result.settings
    table = make_table(
        f"Search on {settings.data.name}, on {settings.device}",
        text=("candidate",),
        numbers=("params", "epochs", "training", "total"),
    )
    table.columns[0].overflow, table.columns[0].max_width = "ellipsis", 34
    for each in result.candidates:
        times = (short_seconds(each.training_seconds), short_seconds(each.seconds))
        table.add_row(each.architecture, short_count(each.params), str(each.epochs), *times)
    output.print(table)
    output.print(
        f"{result.candidates_per_hour:,.0f} candidates per hour; "
        f"{len(result.candidates)} trained, {result.rejected} rejected (over budget)"
    )
    output.print(
        f"overhead besides training: {short_seconds(result.overhead)} per trained candidate, "
        f"{percent(result.overhead_share)} % of the search"
    )
    output.print(
        _spread_table(f"Overhead of {len(result.rejections)} rejected candidates", summarise(result.rejections))
    )
    title = f"Overhead of {len(result.late)} candidates after {KNOWN:,} trials"
    output.print(_spread_table(title, summarise(result.late)))
    print_goals(output, result.goals)


def _print_driver(output: Console, result: DriverBenchmark) -> None:
    from budgetnet.common.formatting import short_seconds

    output.print(
        f"{result.workers:,} simulated workers, {result.candidate_seconds:g} s per candidate; "
        f"{result.candidates:,} candidates after {result.earlier:,} trials; {result.sampler}, {result.pruner}"
    )
    output.print(f"driver: {short_seconds(result.cpu_per_candidate)} of CPU time per candidate")
    output.print(f"workers wait for the driver in {result.idle_percent:.1f} % of their time")
    output.print(f"a report is answered within {short_seconds(result.report_seconds)} (median)")
    output.print(f"the study opens in {short_seconds(result.opening_seconds)}; memory {result.memory / 1e6:,.0f} MB")
    print_goals(output, result.goals)


def _print_start(output: Console, result: StartBenchmark) -> None:
    output.print(_spread_table("Time to the end of the first training step", result.parts))
    output.print(f"{result.spec.label} on {result.data}, on {result.environment['device']}")
    output.print(f"{len(result.starts)} fresh interpreters, one after another; files may be in the system's cache")
    print_goals(output, result.goals)


def _spread_table(title: str, parts: Mapping[str, Spread]) -> Table:
    from budgetnet.common.formatting import short_seconds

    table = make_table(title, text=("part",), numbers=("median", "min", "max"))
    for part, spread in parts.items():
        table.add_row(part.replace("_", " "), *map(short_seconds, spread), style="bold" if part == "total" else "")
    return table
