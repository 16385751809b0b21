"""The ``budgetnet trials`` command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from budgetnet.cli.completion import completing
from budgetnet.cli.options import Json, Out, Storage, print_json
from budgetnet.cli.parsing import one_of

if TYPE_CHECKING:
    from rich.table import Table

    from budgetnet.study.trials import Trial

_ORDERS: dict[str, Callable[[Trial], Any]] = {
    "number": lambda trial: trial.number,
    "accuracy": lambda trial: -1.0 if trial.accuracy is None else trial.accuracy,
    "params": lambda trial: trial.params,
    "macs": lambda trial: trial.macs,
    "epochs": lambda trial: trial.epochs or 0,
    "outcome": lambda trial: trial.outcome,
}
"""What to sort by, and how; accuracies, epochs and costs have the largest first."""


def trials(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]",
            autocompletion=completing("[STUDY]"),
            help="Name of a study. Default: the most recent.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option("--sort", metavar="KEY", help=f"What to sort by: {', '.join(_ORDERS)}.")
    ] = "number",
    out: Out = Path("runs"),
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """List every trial of a study with its outcome, the reason for it and the last accuracy."""
    key = one_of(sort, tuple(_ORDERS), field="--sort")
    from budgetnet.study.damage import damaged_trials
    from budgetnet.study.reading import read_trials
    from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors

    kept = open_storage(storage or default_storage(out), create=False)
    with storage_errors(str(kept.url)):
        found = find_study(kept, study)
        listed = sorted(read_trials(found), key=_ORDERS[key], reverse=key in ("accuracy", "params", "macs", "epochs"))
        damaged = damaged_trials(found)
    if as_json:
        rows = [_mapping(trial) for trial in listed]
        print_json({"study": found.study_name, "trials": rows, "damaged": damaged})
        return
    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import count_of

    output = console()
    resumed = sum(trial.resumed_in is not None for trial in listed)
    title = f"{found.study_name}: {count_of(len(listed), 'trial')}"
    title += f", {resumed} of them resumed in another" if resumed else ""
    output.print(_table(listed, title=title, width=output.width))
    name = f"{found.study_name}#N"
    # A name of a run says no storage, only a folder.
    accepted = f"; {name if out == Path('runs') else out / name} is accepted as a run" if storage is None else ""
    typer.echo(
        "accuracy: on the validation images, at the epoch of the lowest validation loss before the trial ended"
        f"{accepted}"
    )


def _mapping(trial: Trial) -> dict[str, Any]:
    mapping = trial._asdict()
    mapping |= mapping.pop("needs")
    for name in ("began", "finished"):
        mapping[name] = None if mapping[name] is None else mapping[name].isoformat()
    reports = {str(epoch): value for epoch, value in trial.reports.items()}
    return mapping | {"reports": reports, "sampled": dict(trial.sampled)}


def _reason(trial: Trial) -> str:
    """Return why a trial ended, and in which one its candidate was resumed."""
    resumed = "" if trial.resumed_in is None else f", resumed in #{trial.resumed_in}"
    return f"{trial.ended or ''}{resumed}"


def _table(listed: Sequence[Trial], *, title: str, width: int) -> Table:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from budgetnet.cli.tables import Architecture
    from budgetnet.common.formatting import percent, short_count

    wide = width >= 110
    table = Table(title=title, title_justify="left")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for heading in ("accuracy %", "epochs", "params"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("architecture" if wide else "architecture, reason", min_width=12)
    if wide:
        table.add_column("reason", overflow="fold", min_width=20)
    for trial in listed:
        cells = [
            trial.name,
            trial.outcome,
            "" if trial.accuracy is None else percent(trial.accuracy, images=trial.images),
        ]
        cells += ["" if trial.epochs is None else str(trial.epochs)]
        cells += [f"{trial.params:,}" if wide else short_count(trial.params)]
        network, reason = Architecture(trial.architecture), _reason(trial)
        if wide:
            table.add_row(*cells, network, reason)
        else:
            # There is no room for another column.
            table.add_row(*cells, Group(network, Text(reason, overflow="fold")) if reason else network)
    return table
