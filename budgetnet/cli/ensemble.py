"""The ``budgetnet ensemble`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from budgetnet.cli.evaluate import evaluate_runs, print_images
from budgetnet.cli.options import Device, Json, MaxParams, On, OtherData, RunsArgument, TestTimeAugmentation, print_json
from budgetnet.cli.parsing import read_budget
from budgetnet.common.errors import InputError, OverBudgetError
from budgetnet.runs.recipe import LEAKAGE_WARNING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from budgetnet.evaluation.results import EnsembleResult
    from budgetnet.runs.metrics import Scores


def ensemble(
    runs: RunsArgument,
    max_params: MaxParams = None,
    on: On = "validation",
    data: OtherData = None,
    tta: TestTimeAugmentation = "recipe",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate an ensemble that averages probabilities, and its members; exit code 3 if over budget together."""
    budget = read_budget(max_params=max_params)
    if len(runs) < 2:
        raise InputError("RUN", str(runs[0]), "must be at least two runs")
    evaluated = evaluate_runs(runs, on=on, data=data, tta=tta, device=device, by="ensemble", together=True)
    result = evaluated.ensemble()
    leaks = any(each.leaks for each in evaluated)
    fits = budget.max_params is None or result.params <= budget.max_params
    if as_json:
        facts: dict[str, Any] = {"on": on, "max_params": budget.max_params, "fits": fits, "leaks": leaks}
        facts["kept"] = all(each.kept for each in evaluated)
        print_json({**facts, **result.to_mapping()})
    else:
        from budgetnet.cli.tables import console

        output = console()
        print_ensemble(output, result, max_params=budget.max_params, leaks=leaks)
        for number, each in enumerate(evaluated, 1):
            for remark in each.remarks:
                if remark != LEAKAGE_WARNING:
                    output.print(f"{number}: {remark}")
        print_images(output, evaluated)
    if not fits:
        raise typer.Exit(OverBudgetError.exit_code)


def print_ensemble(output: Console, result: EnsembleResult, *, max_params: int | None, leaks: bool) -> None:
    """Print the members, their mean, the ensemble, comparisons with each member, and the total cost."""
    from budgetnet.cli.evaluation_tables import HOW_COMPARED, comparison_table
    from budgetnet.evaluation.results import ENSEMBLE

    output.print(_table(result))
    if leaks:
        output.print(LEAKAGE_WARNING, style="yellow")
    numbers = {str(record.folder): str(number) for number, (record, _) in enumerate(result.members, 1)}
    title = f"ensemble compared with each member; best member: {result.best + 1}"
    output.print(comparison_table(result.comparisons, title=title, numbers={**numbers, ENSEMBLE: ENSEMBLE}))
    output.print(HOW_COMPARED)
    over = max_params is not None and result.params > max_params
    output.print(_in_all(result, max_params), style="red" if over else None)


def _in_all(result: EnsembleResult, allowed: int | None) -> str:
    line = f"{result.params:,} parameters and {result.macs:,} MACs in total"
    if allowed is None:
        return line
    spare = allowed - result.params
    return f"{line}: {'fits' if spare >= 0 else 'over budget'}, {allowed:,} allowed, headroom {spare:,}"


def _table(result: EnsembleResult) -> Table:
    from budgetnet.cli.evaluation_tables import fold
    from budgetnet.cli.tables import titled_table
    from budgetnet.common.formatting import percent
    from budgetnet.statistics.intervals import format_with_interval

    table = titled_table(
        "ensemble of averaged probabilities", "", "run", "params", "accuracy % [95 %]", "loss", "ECE %"
    )
    fold(table, 1)

    def measures(scores: Scores) -> list[str]:
        accuracy = format_with_interval(scores.accuracy, scores.interval, images=scores.images)
        return [accuracy, f"{scores.loss:.4f}", percent(scores.calibration().ece)]

    for number, (record, scores) in enumerate(result.members, 1):
        table.add_row(str(number), record.folder.name, f"{record.result.params:,}", *measures(scores))
    mean = [
        percent(result.mean_accuracy, images=result.scores.images),
        f"{result.mean_loss:.4f}",
        percent(result.mean_ece()),
    ]
    table.add_section()
    table.add_row("", "mean member", "", *mean)
    table.add_row("", "ensemble", f"{result.params:,}", *measures(result.scores), style="bold")
    return table
