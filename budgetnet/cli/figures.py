"""The ``budgetnet figures`` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from budgetnet.api.inputs import network_of
from budgetnet.cli.completion import completing
from budgetnet.cli.parsing import one_of
from budgetnet.common.errors import InputError
from budgetnet.common.files import resolved

if TYPE_CHECKING:
    from budgetnet.runs.records import RunRecord


def figures(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...",
            autocompletion=completing("RUN"),
            help="Run folders, or best, #3 or STUDY#3; runs that differ only in the seed share a figure.",
        ),
    ] = None,
    spec: Annotated[
        str | None, typer.Option("--spec", metavar="SPEC", help="Draw the outline of this network, without a run.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the figures.")] = Path("figures"),
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="F,F",
            help="Comma-separated formats: html, svg, png, json; svg and png need the extra figures.",
        ),
    ] = "html",
    shared_script: Annotated[
        bool,
        typer.Option(
            "--shared-script",
            help="HTML figures load one plotly.min.js from their folder, instead of containing 5 MB each.",
        ),
    ] = False,
) -> None:
    """Draw network outlines and the accuracy and loss curves of runs."""
    if not runs and spec is None:
        raise InputError("RUN", "", "name at least one run folder, or a network with --spec")
    from budgetnet.visualization.figures import (
        SUFFIXES,
        accuracy_curves,
        loss_curves,
        outline,
        require_writable,
        write_figure,
    )

    known = [suffix.removeprefix(".") for suffix in SUFFIXES]
    suffixes = [one_of(text.strip(), known, field="--format") for text in formats.split(",")]
    network = None if spec is None else network_of(spec)
    records = _read(runs or [])

    plots: dict[str, Any] = {} if network is None else {f"{network.label[:48]}-outline": outline(network)}
    for name, group in records.items():
        plots[f"{name}-outline"] = outline(group[0].identity.spec)
        plots[f"{name}-accuracy"] = accuracy_curves(group)
        plots[f"{name}-loss"] = loss_curves(group)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--out", str(out), f"must be a folder that can be written to: {error.strerror}") from None
    files = [(figure, out / f"{name}.{suffix}") for name, figure in plots.items() for suffix in dict.fromkeys(suffixes)]
    for _, path in files:
        require_writable(path)
    for figure, path in files:
        write_figure(figure, path, shared_script=shared_script)
        typer.echo(str(path))


def _read(runs: list[Path]) -> dict[str, list[RunRecord]]:
    """Return groups of runs that differ only in the seed, by the name of their figures."""
    from budgetnet.runs.store import RunFolder
    from budgetnet.study.choices import path_of_run

    groups: dict[str, list[RunRecord]] = {}
    # A folder given twice, such as by a pattern and by name, counts once.
    for run in {resolved(path): path for path in (Path(path_of_run(str(run))) for run in runs)}.values():
        record = RunFolder(run).load(weights=False)
        groups.setdefault(record.identity.digest_without_seed, []).append(record)
    named: dict[str, list[RunRecord]] = {}
    for digest, group in groups.items():
        first, count = group[0], len(group)
        shared = f"{first.identity.spec.label[:48]}-{count}-seeds-{digest[:10]}"
        name = first.folder.resolve().name if count == 1 else shared
        if name in named:
            raise InputError(
                "RUN",
                str(first.folder),
                "must have another name than the other runs, as its figures are named after it",
            )
        named[name] = group
    return named
