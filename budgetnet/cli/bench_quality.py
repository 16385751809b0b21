"""`budgetnet bench quality` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.bench_output import make_table, print_goals, print_result, read_count, show_progress
from budgetnet.cli.options import Json, Seed
from budgetnet.common.documents import look_up
from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from budgetnet.bench.quality.pruning import PruningRow
    from budgetnet.bench.quality.replay import QualityBenchmark

_DEFAULT = "random,near,most-macs,tpe,nsga2,surrogate"


def quality(
    macro: Annotated[
        Path | None,
        typer.Option(
            "--macro",
            metavar="FILE",
            help="NAS-Bench-Macro: nas-bench-macro_cifar10.json of github.com/xiusu/NAS-Bench-Macro.",
        ),
    ] = None,
    one_cap: Annotated[
        Path | None,
        typer.Option("--one-cap", metavar="DIR", help="Networks at one cap on parameters: studies/one-cap."),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(
            "--tables",
            metavar="T,T",
            help="Tables: macro, one-cap, nasbench201, hpolib, hpobench; the last three need the extra quality. "
            "Default: macro and one-cap if they are given, else the others.",
        ),
    ] = None,
    strategies: Annotated[
        str,
        typer.Option(
            "--strategies",
            metavar="S,S",
            help="Strategies: random, near, most-macs, tpe, tpe-rejecting, nsga2, gp, surrogate.",
        ),
    ] = _DEFAULT,
    repeat: Annotated[
        str, typer.Option("--repeat", metavar="N", help="Replays of each problem by each strategy; gp has a tenth.")
    ] = "200",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Also write a figure: html, svg, png or json.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure how good the networks are that samplers find, by replaying searches on tables of trained networks."""
    count = read_count(repeat, field="--repeat", least=2, most=100_000)
    with show_progress() as progress:
        import optuna

        from budgetnet.bench.quality.one_cap import ONE_CAP
        from budgetnet.bench.quality.replay import run
        from budgetnet.bench.quality.strategies import STRATEGIES
        from budgetnet.bench.quality.tables import MACRO, PACKAGED, load

        given = {MACRO: ("--macro", macro), ONE_CAP: ("--one-cap", one_cap)}
        default = tuple(name for name, (_, path) in given.items() if path is not None) or PACKAGED
        names = default if tables is None else tuple(_parts(tables, field="--tables"))
        asked = list(_parts(strategies, field="--strategies"))
        for name in asked:
            look_up(name, STRATEGIES, field="--strategies", missing="no such strategy")
        for name, (option, path) in given.items():
            if path is not None and name not in names:
                raise InputError(option, str(path), f"is read for the table {name} only, which --tables leaves out")
        if plot is not None:
            from budgetnet.visualization.figures import require_writable

            require_writable(plot, field="--plot")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        progress("loading the tables")
        problems = load(names, macro=macro, one_cap=one_cap)
        result = run(
            problems,
            asked,
            repetitions=lambda name: max(2, count // 10) if name == "gp" else count,
            seed=seed,
            progress=progress,
        )
    if plot is not None:
        from budgetnet.visualization.figures import write_figure

        write_figure(result.figure, plot, field="--plot")
    print_result(result, _print_quality, as_json=as_json, packages=("optuna",))


def _parts(text: str, *, field: str) -> dict[str, None]:
    """Return the entries of a comma-separated list, each once."""
    parts = dict.fromkeys(part.strip() for part in text.split(","))
    if "" in parts:
        raise InputError(field, text, "must be names separated by commas")
    return parts


def _print_quality(output: Console, result: QualityBenchmark) -> None:
    from budgetnet.bench.quality.replay import EQUAL, TRAININGS
    from budgetnet.bench.quality.strategies import STRATEGIES
    from budgetnet.common.formatting import short_seconds

    for table in result.tables:
        rows = [row for row in result.rows if row.table == table]
        problems = ", ".join(rows[0].problems)
        shown = make_table(
            f"{table}: {problems}",
            text=("strategy",),
            numbers=(*map(str, TRAININGS), "cost", "n", "wins", "time"),
        )
        for row in rows:
            low, high = row.interval(TRAININGS.index(EQUAL))
            cells = [f"{value:.2f}" for value in row.mean]
            cells[TRAININGS.index(EQUAL)] += f" [{low:.2f}, {high:.2f}]"
            better = result.better_than_random(row)
            shown.add_row(
                row.strategy,
                *cells,
                f"{row.trainings.mean():.1f}",
                "" if better is None else f"{100 * better:.0f} %",
                short_seconds(row.seconds),
            )
        output.print(shown)
        _print_pruning(output, [row for row in result.pruning if row.table == table])
    output.print("; ".join(f"{name}: {STRATEGIES[name][0]}" for name in result.repetitions))
    output.print(
        "5 to 40: regret after that many trainings, in points below the best network within the limit [95 % interval]; "
        f"cost: regret at equal cost, what {EQUAL} random candidates cost on average (in MACs if known, else seconds); "
        f"n: trainings there; wins: share of replays with a smaller regret than random's after {EQUAL} trainings, ties "
        "half; time: of a training's proposals"
    )
    output.print("one training seed judges, the mean of the seeds is the truth")
    counts = sorted(set(result.repetitions.values()), reverse=True)
    output.print(f"{' or '.join(map(str, counts))} replays of each problem by each strategy")
    print_goals(output, result.goals)


def _print_pruning(output: Console, rows: list[PruningRow]) -> None:
    if not rows:
        return
    from budgetnet.statistics.intervals import mean_interval

    ends = ", ".join(map(str, rows[0].compared))
    shown = make_table(
        f"{rows[0].table}: random candidates, pruned after epoch {ends}",
        text=("pruner",),
        numbers=("trained", "whole", "pruned", "saved", "then", "equal epochs", "less whole [95 %]"),
    )
    for row in rows:
        low, high = mean_interval((row.equal_epochs - row.plain).tolist())
        shown.add_row(
            row.pruner,
            str(row.candidates),
            f"{row.plain.mean():.2f}",
            f"{row.pruned.mean():.2f}",
            f"{100 * row.saved.mean():.0f} %",
            f"{row.candidates_then.mean():.1f}",
            f"{row.equal_epochs.mean():.2f}",
            f"{(row.equal_epochs - row.plain).mean():+.2f} [{low:+.2f}, {high:+.2f}]",
        )
    output.print(shown)
    output.print(
        "whole: regret after that many trainings to the end; pruned: regret of the best that is trained to the end if "
        "equally many candidates may be pruned; saved: epochs that this saves; then: candidates with pruning in as "
        "many epochs as whole trainings; equal epochs: regret there; replays have the same order of candidates"
    )
