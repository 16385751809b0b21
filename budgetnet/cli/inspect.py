"""The commands ``check``, ``summary``, ``specs`` and ``schema``; only ``check --verify`` imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from budgetnet.api.inputs import network_of
from budgetnet.cli.options import (
    DeviceFileOption,
    ImagesOf,
    InputShape,
    Json,
    MaxActivations,
    MaxLatency,
    MaxMacs,
    MaxParams,
    MaxPeakMemory,
    MaxWeights,
    OptionalSpec,
    SpecArgument,
    WeightPrecision,
    print_json,
)
from budgetnet.cli.parsing import image_of, read_budget, read_image
from budgetnet.common.config import option_of
from budgetnet.common.documents import Document, parse_count
from budgetnet.common.errors import BudgetnetError, InputError, OverBudgetError
from budgetnet.common.files import require_file_place
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.verdict import SpecVerdict
from budgetnet.runs.run_files import require_no_run_file


def check(
    spec: OptionalSpec = None,
    max_params: MaxParams = None,
    max_macs: MaxMacs = None,
    max_activations: MaxActivations = None,
    max_weights: MaxWeights = None,
    weight_precision: WeightPrecision = "float32",
    max_peak_memory: MaxPeakMemory = None,
    max_latency_ms: MaxLatency = None,
    device_file: DeviceFileOption = None,
    data: ImagesOf = None,
    module: Annotated[
        str | None,
        typer.Option(
            "--module",
            metavar="PACKAGE:CALLABLE",
            help="In place of a spec, a function or class of yours that returns a torch module; it is called, and "
            "torch counts the module.",
        ),
    ] = None,
    input_shape: InputShape = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also build the network and count parameters and MACs with torch and thop.")
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            metavar="FILE",
            help="Write the spec to FILE if it fits, else that of an edit which does; YAML or JSON.",
        ),
    ] = None,
    edit: Annotated[
        int | None, typer.Option("--edit", metavar="N", min=1, help="Number of the edit to write. Default: 1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a network against a budget without building it; exit code 3 if over budget."""
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
    if module is not None:
        given = {"SPEC": spec, "--verify": verify or None, "--write": write, "--edit": edit}
        _check_module(module, budget, data=data, input_shape=input_shape, given=given, as_json=as_json)
        return
    if edit is not None and write is None:
        raise InputError("--edit", edit, "needs --write, the file to write the edit to")
    if write is not None:
        require_file_place(write, field="--write")
        require_no_run_file(write, field="--write")
    network = _network(spec, data=data, input_shape=input_shape)
    # Raises where the device's file cannot tell.
    budget.predicted(network)
    verdict = budget.check(network)
    counts = _verify(network) if verify else None
    written = None if write is None else _write(verdict, write, number=edit or 1)
    if as_json:
        print_json({**verdict.to_mapping(), **({} if counts is None else {"verified": counts})})
    else:
        from budgetnet.cli.tables import console, edits_table, image_line, verdict_table

        output = console()
        output.print(verdict_table(verdict))
        if data is not None:
            output.print(image_line(data, input_shape=network.input_shape, num_classes=network.num_classes))
        if verdict.edits:
            output.print(edits_table(verdict))
        elif not verdict.fits:
            typer.echo("no single edit of widths, blocks or kernels fits the budget")
        if written is not None:
            typer.echo(f"wrote {written} to {write}")
        if counts is not None:
            typer.echo(
                f"verified on the network: {counts['built_params']:,} parameters, thop {counts['thop_params']:,}; "
                f"{counts['torch_macs']:,} MACs by torch's counter: all agree"
            )
    if not verdict.fits:
        raise typer.Exit(OverBudgetError.exit_code)


def _network(spec: str | None, *, data: str | None, input_shape: str | None) -> ModelSpec:
    """Return a network for the images of a data set, for images of a shape, or as its specification has it."""
    if spec is None:
        raise InputError("SPEC", None, "must be given, or --module")
    network = network_of(spec)
    if data is not None and input_shape is not None:
        raise InputError("--input-shape", input_shape, "must not be given with --data, which has its own")
    if data is not None:
        return network.adapted(**image_of(data))
    if input_shape is None:
        return network
    shape = read_image(input_shape, None)["input_shape"]
    return network.adapted(input_shape=shape, num_classes=network.num_classes)


def _check_module(
    text: str, budget: Budget, *, data: str | None, input_shape: str | None, given: dict[str, Any], as_json: bool
) -> None:
    """Check a torch module that is not described by a spec."""
    for option, value in given.items():
        if value is not None:
            raise InputError(option, value, "must not be given with --module, which is not a spec")
    if data is not None and input_shape is not None:
        raise InputError("--input-shape", input_shape, "must not be given with --data, which has its own")
    from budgetnet.api.checking import check as check_any
    from budgetnet.cli.modules import module_of

    shape = read_image(input_shape, None)["input_shape"] if input_shape is not None else None
    for name, allowed in budget.deployed.items():
        raise InputError(option_of(f"max_{name}"), allowed, "must not be given with --module, which is not a spec")
    limits = budget.to_mapping()
    verdict = check_any(module_of(text), **limits, data=data, input_shape=shape)
    if as_json:
        print_json(verdict.to_mapping())
    else:
        from budgetnet.cli.tables import console, verdict_table

        console().print(verdict_table(verdict))
    if not verdict.fits:
        raise typer.Exit(OverBudgetError.exit_code)


def _write(verdict: SpecVerdict, path: Path, *, number: int) -> str | None:
    """Write the network if it fits, else that of an edit; return what was written, None if no edit fits.

    Raises:
        InputError: there is no edit with this number.
    """
    if verdict.fits:
        verdict.spec.save(path)
        return verdict.name
    if not verdict.edits:
        return None
    if number > len(verdict.edits):
        raise InputError("--edit", number, f"must be from 1 to {len(verdict.edits)}, the number of edits that fit")
    edit = verdict.edits[number - 1]
    edit.spec.save(path)
    return f"{verdict.name} with {edit.description}"


def _verify(spec: ModelSpec) -> dict[str, Any]:
    """Count the built network with independent tools.

    Raises:
        BudgetnetError: a count differs from the closed form, which is a bug of budgetnet.
    """
    from budgetnet.model.verify import count_built

    counts = count_built(spec)
    expected = {"built_params": spec.params, "thop_params": spec.params, "torch_macs": spec.macs}
    if counts != expected:
        raise BudgetnetError(
            f"closed-form counts of {spec.label} are wrong (a bug): expected {expected}, counted {counts}"
        )
    return counts


def summary(
    spec: SpecArgument,
    input_size: Annotated[
        str | None, typer.Option("--input-size", metavar="N", help="Side length of a square input image, in pixels.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a network layer by layer with output shapes and cost, as the paper's Table 1."""
    size = None if input_size is None else parse_count(input_size, field="--input-size")
    if size is not None and size > 4096:
        raise InputError("--input-size", size, "must be at most 4096 pixels")
    table = network_of(spec).summary(input_size=size)
    if as_json:
        print_json(table.to_mapping())
    else:
        typer.echo(str(table))


def specs(as_json: Json = False) -> None:
    """List the named networks."""
    from budgetnet.model.zoo import ENTRIES, get

    entries = [
        {"name": name, **get(name).cost._asdict(), "inferred": entry.inferred, "source": entry.source}
        for name, entry in ENTRIES.items()
    ]
    if as_json:
        print_json(entries)
        return
    from rich.table import Table

    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import short_count

    table = Table("name", "params", "MACs", "source")
    table.columns[1].justify = table.columns[2].justify = "right"
    for entry in entries:
        source = f"{entry['source']}{' (layout inferred)' if entry['inferred'] else ''}"
        table.add_row(entry["name"], f"{entry['params']:,}", short_count(entry["macs"]), source)
    console().print(table)


def schema(
    document: Annotated[str, typer.Argument(metavar="spec|recipe|space|ablation", help="Kind of file.")] = "spec",
) -> None:
    """Print the JSON schema of a specification, recipe, search space or ablation study file."""
    from budgetnet.experiments.ablation import AblationStudy
    from budgetnet.runs.recipe import Recipe
    from budgetnet.study.space import SearchSpace

    kinds: dict[str, type[Document]] = {
        "spec": ModelSpec,
        "recipe": Recipe,
        "space": SearchSpace,
        "ablation": AblationStudy,
    }
    if document not in kinds:
        raise InputError("document", document, "must be spec, recipe, space or ablation")
    print_json(kinds[document].model_json_schema())
