"""`budgetnet bench` commands; those that train are in `bench_training` and `bench_search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli import bench_quality, bench_search, bench_training
from budgetnet.cli.bench_output import (
    make_table,
    print_goals,
    print_result,
    read_count,
    require_seconds,
    show_progress,
)
from budgetnet.cli.bench_output import memory as size_text
from budgetnet.cli.fields import Command, Group
from budgetnet.cli.options import (
    Classes,
    DeviceFileOption,
    InputShape,
    Json,
    MaxActivations,
    MaxLatency,
    MaxMacs,
    MaxParams,
    MaxPeakMemory,
    MaxWeights,
    Seed,
    SpaceArgument,
    WeightPrecision,
)
from budgetnet.cli.parsing import read_budget, read_image, read_space
from budgetnet.common.extras import require_extra

if TYPE_CHECKING:
    from rich.console import Console

    from budgetnet.bench.check import CheckBenchmark
    from budgetnet.bench.memory import MemoryBenchmark
    from budgetnet.bench.proposals import ProposalsBenchmark
    from budgetnet.bench.reporting import ReportBenchmark


def check(
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="N", help="Approximate duration; at least three samples per method.")
    ] = 8.0,
    as_json: Json = False,
) -> None:
    """Measure the time to count a network in closed form, by thop and by torch's counter, and compare the counts."""
    require_seconds(seconds)
    with show_progress() as progress:
        from budgetnet.bench.check import run

        result = run(seconds=seconds, progress=progress)
    print_result(result, _print_check, as_json=as_json, packages=("torch", "thop", "numpy", "pydantic"))


def proposals(
    space: SpaceArgument = "resnet",
    max_params: MaxParams = "5M",
    max_macs: MaxMacs = None,
    max_activations: MaxActivations = None,
    max_weights: MaxWeights = None,
    weight_precision: WeightPrecision = "float32",
    max_peak_memory: MaxPeakMemory = None,
    max_latency_ms: MaxLatency = None,
    device_file: DeviceFileOption = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    count: Annotated[str, typer.Option("--count", metavar="N", help="Proposals per sizing.")] = "1000",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure how many random proposals fit the budget, and how much of it they use, for each sizing."""
    number = read_count(count, field="--count", most=1_000_000)
    budget = read_budget(
        max_params=max_params,
        max_macs=max_macs,
        max_activations=max_activations,
        max_weights=max_weights,
        weight_precision=weight_precision,
        max_peak_memory=max_peak_memory,
        max_latency_ms=max_latency_ms,
        device_file=device_file,
    )
    image = read_image(input_shape, classes)
    search_space = read_space(space)
    with show_progress() as progress:
        from budgetnet.bench.proposals import run

        result = run(search_space, budget=budget, **image, proposals=number, seed=seed, progress=progress)
    print_result(result, _print_proposals, as_json=as_json, packages=("optuna",))


def memory(
    networks: Annotated[
        str, typer.Option("--networks", metavar="N", help="Networks of all named spaces and of `budgetnet specs`.")
    ] = "200",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare predicted peak memory with what ONNX Runtime plans on this machine."""
    number = read_count(networks, field="--networks", most=100_000)
    require_extra("export", "onnx", "onnxruntime", "onnxscript", field="bench", value="memory")
    with show_progress() as progress:
        from budgetnet.bench.memory import run

        result = run(networks=number, seed=seed, progress=progress)
    print_result(result, _print_memory, as_json=as_json, packages=("torch", "onnxruntime"))


def report(
    trials: Annotated[
        str, typer.Option("--trials", metavar="N", help="Trials of the study, with invented results.")
    ] = "1000",
    repeat: Annotated[str, typer.Option("--repeat", metavar="N", help="Number of reports.")] = "3",
    as_json: Json = False,
) -> None:
    """Measure the time of `budgetnet report` and the size of its page, for a study of many trials."""
    number = read_count(trials, field="--trials", most=100_000)
    times = read_count(repeat, field="--repeat", most=1000)
    with show_progress() as progress:
        from budgetnet.bench.reporting import run

        result = run(trials=number, repeat=times, progress=progress)
    print_result(result, _print_report, as_json=as_json, packages=("optuna",))


bench = typer.Typer(
    cls=Group, help="Measure budgetnet on this machine, compared with other tools.", no_args_is_help=True
)
for command in (
    check,
    bench_training.train,
    bench_training.growth,
    bench_training.profile,
    bench_training.workers,
    proposals,
    bench_search.search,
    bench_search.driver,
    bench_quality.quality,
    bench_search.start,
    report,
    memory,
):
    bench.command(cls=Command)(command)


def _print_check(output: Console, result: CheckBenchmark) -> None:
    from budgetnet.bench.check import CLOSED_FORM
    from budgetnet.common.formatting import short_seconds

    table = make_table(
        "Time to count a network, median of alternating samples",
        text=("network", "method"),
        numbers=("median", "min", "max", "ratio"),
    )
    for network, methods in result.measurements.items():
        for position, (method, times) in enumerate(methods.items()):
            ratio = result.ratios[network].get(method)
            table.add_row(
                network if position == 0 else "",
                method,
                *(short_seconds(time) for time in times[:3]),
                "" if ratio is None else f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}",
                style="green" if method == CLOSED_FORM else None,
                end_section=position == len(methods) - 1,
            )
    output.print(table)
    output.print("ratio: median time relative to the closed form of the same network")
    output.print("all methods agree on the counts of every network; one thread unless threaded")
    print_goals(output, result.goals)


def _print_proposals(output: Console, result: ProposalsBenchmark) -> None:
    from budgetnet.common.formatting import percent, short_seconds
    from budgetnet.statistics.intervals import format_with_interval
    from budgetnet.study.space.named import describe_space

    shape = "x".join(map(str, result.input_shape))
    table = make_table(
        f"Proposals of the space {describe_space(result.space)}: at most {result.budget.in_words()}; images {shape}",
        text=("sizing",),
        numbers=("count", "within % [95 %]", "use %", "low use %", "time"),
    )
    for row in result.rows:
        uses = ("-" if use is None else percent(use) for use in (row.median_use, row.low_use))
        within = format_with_interval(row.share_within, row.interval)
        table.add_row(row.sizing, f"{row.proposals:,}", within, *uses, short_seconds(row.seconds_per_proposal))
    output.print(table)
    output.print("within: share of proposals within the budget")
    output.print("use, low use: median and 5th percentile of the tightest limit's use, of those")
    output.print("time: mean, to sample, size and check")
    print_goals(output, result.goals)


def _print_memory(output: Console, result: MemoryBenchmark) -> None:
    from budgetnet.bench.memory import FAR, NEAR

    table = make_table(
        f"Predicted peak memory, in blocks of {result.block_size} channels, against ONNX Runtime's",
        text=("networks of",),
        numbers=("count", "exact", f"within {100 * NEAR:g} %", f"{100 * FAR:g} % under", "largest error %"),
    )
    for source, found in result.by_source.items():
        exact = sum(each.predicted == each.measured for each in found)
        near, under = sum(each.is_near for each in found), sum(each.is_under for each in found)
        largest = max((each.error for each in found), key=abs)
        table.add_row(source, *map(str, (len(found), exact, near, under)), f"{100 * largest:+.2f}")
    output.print(table)
    print_goals(output, result.goals)


def _print_report(output: Console, result: ReportBenchmark) -> None:
    from budgetnet.common.formatting import short_seconds

    median, least, most = map(short_seconds, result.spread)
    output.print(f"Report of {result.trials:,} completed trials, each with a run folder")
    output.print(f"time: median {median}, {least} to {most}; {len(result.seconds)} fresh interpreters")
    output.print(f"size: {size_text(result.bytes)}")
    print_goals(output, result.goals)
