"""The verb that ablates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
import yaml

from budgetnet.cli.options import (
    Device,
    Epochs,
    Json,
    Out,
    Threads,
    Track,
    TrainSize,
    ValidationSize,
    one_of,
    print_json,
    read_recipe,
    read_sizes,
    read_spec,
    read_threads,
    read_trackers,
    require_folder,
    set_threads_shown,
)
from budgetnet.common.documents import parse_count
from budgetnet.common.errors import InputError
from budgetnet.common.files import write_json, write_text

if TYPE_CHECKING:
    from budgetnet.engines.local import Batch
    from budgetnet.experiments.ablation.results import AblationResult
    from budgetnet.experiments.ablation.study import AblationStudy
    from budgetnet.experiments.ablation.variants import Variant
    from budgetnet.runs.records import RunRecord
    from budgetnet.training.callbacks import Callback
    from budgetnet.training.threads import Wanted

    Records = dict[tuple[str, str], list[RunRecord]]

STUDY_FILE = "study.yaml"
"""The file that a study's folder is read from."""


def ablate(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study as a YAML or JSON file, or its folder with a study.yaml.")
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="As for train. Left out: what the study names, else digits."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--change",
            metavar="PATH=VALUE",
            help="Lay a value over the base, such as recipe.epochs=30 or spec=resnet20; again for more.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="S", help="So many seeds from 0 on, in place of the study's.")
    ] = None,
    epochs: Epochs = None,
    train_size: TrainSize = None,
    validation_size: ValidationSize = None,
    interval: Annotated[
        str, typer.Option("--interval", help="t, or bootstrap for many seeds: how intervals and p-values are made.")
    ] = "t",
    out: Out = Path("runs"),
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="DIR", help="Also write results.csv, results.json and forest.html here."),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the variants and train nothing.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Train nothing: report from the runs that are complete so far.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Train every variant of a study with the same seeds and show what each change is worth; resumable."""
    from budgetnet.experiments.ablation.results import Method

    if list_only and partial:
        raise InputError("--partial", "", "must not be given with --list")
    method = cast(Method, one_of(interval, get_args(Method), field="--interval"))
    question = _read_study(study, change or [], seeds=seeds, epochs=epochs)
    require_folder(out, field="--out")
    if save is not None:
        require_folder(save, field="--save")
    sizes = {name: given or getattr(question, name) for name, given in read_sizes(train_size, validation_size).items()}
    wanted = read_threads(threads)
    trackers = [] if list_only or partial else read_trackers(track, out=out)
    from budgetnet.training.progress import load_shown

    dataset = load_shown(data or question.data or "digits")
    variants = question.variants(input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    if list_only:
        _list(question, variants, as_json=as_json)
        return
    from budgetnet.engines.local import Batch
    from budgetnet.experiments.ablation.running import finished_variants
    from budgetnet.training.devices import choose_device

    batch = Batch(dataset, device=choose_device(device), out=out, **sizes)
    if partial:
        records = finished_variants(question, variants, batch)
    else:
        records = _train(question, variants, batch, threads=wanted, trackers=trackers)
    from budgetnet.experiments.ablation.results import ablation_result

    result = ablation_result(question, variants, records, method=method)
    if as_json:
        print_json(result.to_mapping())
    elif records:
        from budgetnet.cli.ablation_tables import print_ablation

        print_ablation(result, next(iter(records.values()))[0], out=out)
    if partial:
        typer.echo(_extent(question, variants, records), err=as_json)
    # Last, so that a full disk does not take the answer with it.
    if save is not None:
        _save(result, save)
        if not as_json:
            typer.echo(f"written: results.csv, results.json and forest.html in {save}")


def _read_study(path: Path, changes: Sequence[str], *, seeds: str | None, epochs: str | None) -> AblationStudy:
    """The study in a file or folder, with what the command line lays over it.

    Raises:
        InputError: no such file, or one that breaks a rule, alone or with what is laid over it.
    """
    from budgetnet.experiments.ablation.study import MAX_SEEDS, AblationStudy

    study = AblationStudy.load(path / STUDY_FILE if path.is_dir() else path)
    study = _changed(study, dict(_read_change(text) for text in changes))
    if epochs is not None:
        study = study.for_epochs(parse_count(epochs, field="--epochs"))
    wanted: dict[str, Any] = {}
    if seeds is not None:
        wanted["seeds"] = parse_count(seeds, field="--seeds")
        if wanted["seeds"] > MAX_SEEDS:
            raise InputError("--seeds", seeds, f"must be at most {MAX_SEEDS:,}")
    return study if not wanted else AblationStudy.from_mapping({**study.to_mapping(), **wanted})


def _changed(study: AblationStudy, changes: dict[str, Any]) -> AblationStudy:
    """A study with more laid over its base."""
    if not changes:
        return study
    return study.from_mapping({**study.to_mapping(), "changes": {**study.changes, **changes}})


def _read_change(text: str) -> tuple[str, Any]:
    path, sign, value = text.partition("=")
    path = path.strip()
    if not sign or not path:
        raise InputError("--change", text, "must be PATH=VALUE, such as recipe.epochs=30")
    if path == "spec":
        return path, read_spec(value).to_mapping()
    if path == "recipe":
        return path, read_recipe(value, data="", epochs=None).to_mapping()
    try:
        return path, yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError("--change", text, "must have a value as YAML writes it") from None


def _train(
    question: AblationStudy,
    variants: Sequence[Variant],
    batch: Batch,
    *,
    threads: Wanted | None,
    trackers: Sequence[Callback],
) -> Records:
    """Trains every variant within the budget with every seed, and judges them where the study asks for it."""
    from budgetnet.engines.local import first_run
    from budgetnet.experiments.ablation.running import planned, train_variants
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.progress import TerminalProgress

    runs = planned(question, variants)
    set_threads_shown(threads, lambda: first_run(batch, runs))
    try:
        with TerminalProgress(runs=len(runs)) as progress:
            return train_variants(question, variants, batch, Callbacks([progress, *trackers]))
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing is lost, the same command goes on where it stopped", err=True)
        raise


def _extent(question: AblationStudy, variants: Sequence[Variant], records: Records) -> str:
    """How many of a study's runs there are."""
    from budgetnet.experiments.ablation.running import planned

    judged = " and judged on the test set" if question.judged_on == "test" else ""
    count = sum(map(len, records.values()))
    return f"partial: {count} of {len(planned(question, variants))} runs are complete{judged}; nothing was trained"


def _list(question: AblationStudy, variants: Sequence[Variant], *, as_json: bool) -> None:
    if as_json:
        from budgetnet.experiments.ablation.results import ablation_result

        print_json(ablation_result(question, variants, {}).to_mapping())
        return
    from budgetnet.cli.ablation_tables import print_variants

    print_variants(question, variants)


def _save(result: AblationResult, folder: Path) -> None:
    from budgetnet.visualization.figures import ablation_forest, write_figure

    write_text(folder / "results.csv", result.to_csv())
    write_json(folder / "results.json", result.to_mapping())
    write_figure(ablation_forest(result), folder / "forest.html")
