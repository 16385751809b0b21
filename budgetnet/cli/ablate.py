"""The ``budgetnet ablate`` command."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.api.inputs import with_paths_of_runs
from budgetnet.cli.fields import takes_options_of
from budgetnet.cli.options import Json, Quiet, Verbose, print_json
from budgetnet.cli.parsing import check_names, read_verbosity
from budgetnet.cli.termination import interruption
from budgetnet.common.errors import InputError
from budgetnet.common.files import require_folder, write_json, write_text
from budgetnet.experiments.ablation.config import AblationConfig
from budgetnet.experiments.ablation.winner import conclusion

if TYPE_CHECKING:
    from budgetnet.experiments.ablation.results import AblationResult
    from budgetnet.experiments.ablation.study import AblationStudy
    from budgetnet.experiments.ablation.variants import Variant
    from budgetnet.runs.records import RunRecord

    Records = dict[tuple[str, str], list[RunRecord]]


@takes_options_of(AblationConfig)
def ablate(
    config: AblationConfig,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="DIR", help="Also write results.csv, results.json and forest.html here."),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the variants and train nothing.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Train nothing: report the results of the runs that are complete so far.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Train every variant of an ablation with the same seeds and show the effect of each change; resumable.

    --of shows why the winner of a search is the best: each variant has one of its factors set back to --base.
    """
    if list_only and partial:
        raise InputError("partial", "", "must not be given with --list")
    if list_only and save is not None:
        raise InputError("save", str(save), "must not be given with --list, which has no results")
    verbosity = read_verbosity(quiet=quiet, verbose=verbose)
    config = with_paths_of_runs(config)
    study = config.changed_study
    check_names(data=config.data_name)
    if save is not None:
        require_folder(save, field="save")
    from budgetnet.api.search import run_ablation
    from budgetnet.api.search_winner import require_data_of_search
    from budgetnet.training.progress import load_with_progress

    if list_only:
        dataset = load_with_progress(config.data_name)
        require_data_of_search(config, dataset)
        variants = study.variants(input_shape=dataset.input_shape, num_classes=dataset.num_classes)
        held_out = min(
            math.ceil(variant.recipe.validation_fraction * len(dataset.train_labels)) for variant in variants
        )
        images = config.sizes["train_size"] or len(dataset.train_labels) - held_out
        _list(study, variants, images=images, as_json=as_json)
        return
    with interruption():
        result, records = run_ablation(
            config, partial=partial, verbosity=verbosity, say=lambda line: typer.echo(line, err=True)
        )
    if as_json:
        print_json(result.to_mapping())
    elif records:
        from budgetnet.cli.ablation_tables import print_ablation

        print_ablation(result, next(iter(records.values()))[0], out=config.out)
        if config.of is not None:
            typer.echo(conclusion(result))
    if partial:
        typer.echo(_progress_line(study, [row.variant for row in result.rows], records), err=as_json)
    # Last, so that a full disk does not prevent the output above.
    if save is not None:
        _save(result, save)
        if not as_json:
            typer.echo(f"wrote results.csv, results.json and forest.html in {save}")


def _progress_line(study: AblationStudy, variants: Sequence[Variant], records: Records) -> str:
    """Return a line with the number of complete runs."""
    from budgetnet.experiments.ablation.running import planned_runs

    evaluated = " and evaluated on the test set" if study.judged_on == "test" else ""
    count = sum(map(len, records.values()))
    return f"partial: {count} of {len(planned_runs(study, variants))} runs are complete{evaluated}; nothing was trained"


def _list(study: AblationStudy, variants: Sequence[Variant], *, images: int, as_json: bool) -> None:
    if as_json:
        from budgetnet.experiments.ablation.results import ablation_result

        print_json(ablation_result(study, variants, {}).to_mapping())
        return
    from budgetnet.cli.ablation_tables import print_variants

    print_variants(study, variants, images=images)


def _save(result: AblationResult, folder: Path) -> None:
    from budgetnet.visualization.figures import ablation_forest, write_figure

    write_text(folder / "results.csv", result.to_csv())
    write_json(folder / "results.json", result.to_mapping())
    write_figure(ablation_forest(result), folder / "forest.html")
