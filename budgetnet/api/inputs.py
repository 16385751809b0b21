"""Conversion of API arguments: names and files to specs, recipes and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from budgetnet.common.documents import parse_count
from budgetnet.common.errors import InputError
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import find_spec
from budgetnet.runs.named_recipes import find_recipe
from budgetnet.runs.recipe import Recipe

if TYPE_CHECKING:
    from budgetnet.data import DataSet
    from budgetnet.experiments.ablation.config import AblationConfig
    from budgetnet.training.callbacks import Callback
    from budgetnet.training.progress import Verbosity
    from budgetnet.training.threads import ThreadCount


def network_of(text: str) -> ModelSpec:
    """Return the network of that name, in that YAML or JSON file, or of that run, given by its folder or its name.

    Raises:
        InputError: no such name, file or run, or a file that breaks a rule.
    """
    from budgetnet.study.choices import path_of_run

    return find_spec(path_of_run(text))


def spec_of(spec: ModelSpec | Path | str) -> ModelSpec:
    """Return a spec unchanged, or load it by name, from a file or from a run.

    Raises:
        InputError: the name or file does not exist, or the file is invalid.
    """
    return spec if isinstance(spec, ModelSpec) else network_of(str(spec))


def recipe_of(recipe: Recipe | Path | str) -> Recipe:
    """Return a recipe unchanged, or load it by name or from a file.

    Raises:
        InputError: the name or file does not exist, or the file is invalid.
    """
    return recipe if isinstance(recipe, Recipe) else find_recipe(str(recipe))


def dataset_of(data: DataSet | str, *, verbosity: Verbosity | None = None) -> DataSet:
    """Return a data set unchanged, or load it by name, such as ``digits`` or ``folder:PATH``, with a progress bar.

    Args:
        data: a data set, or its name.
        verbosity: whether to show the bar. Default: as the environment variable ``BUDGETNET_VERBOSITY`` says.

    Raises:
        DataError: the data set is missing or damaged.
        InputError: the name is not that of a data set.
    """
    from budgetnet.training.progress import load_with_progress

    return load_with_progress(data, verbosity=verbosity) if isinstance(data, str) else data


def seed_of(seed: int) -> int:
    """Validate a seed.

    Raises:
        InputError: the seed is not a whole number of at least 0.
    """
    return 0 if seed == 0 and not isinstance(seed, bool) else parse_count(seed, field="seed")


def threads_of(threads: ThreadCount | str | None, *, field: str = "threads") -> ThreadCount | None:
    """Validate a number of threads, ``"auto"``, or None.

    Raises:
        InputError: it is neither a whole number of at least 1 nor ``"auto"``.
    """
    if threads is None or threads == "auto":
        return cast("ThreadCount | None", threads)
    try:
        return parse_count(threads, field=field)
    except InputError as error:
        raise InputError(field, threads, f"{error.rule}, or auto") from None


def sizes_of(train_size: int | None, validation_size: int | None) -> dict[str, int | None]:
    """Validate the numbers of training and validation images; None: all.

    Raises:
        InputError: a number is not a whole number of at least 1.
    """
    sizes = {"train_size": train_size, "validation_size": validation_size}
    return {name: None if size is None else parse_count(size, field=name) for name, size in sizes.items()}


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Check that each callback is a `budgetnet.Callback`.

    Raises:
        InputError: a callback is not an instance of `budgetnet.Callback`.
    """
    from budgetnet.training.callbacks import Callback

    for each in callbacks:
        if not isinstance(each, Callback):
            raise InputError("callbacks", each, "must be instances of budgetnet.Callback")


def make_trackers(names: Sequence[str], *, out: Path) -> list[Callback]:
    """Return the trackers of these names, such as ``tensorboard``; their default place is the folder of runs.

    Raises:
        InputError: the tracker does not exist, its package is not installed, or its location cannot be used.
    """
    if not names:
        return []
    from budgetnet.training.trackers import make_tracker

    return [make_tracker(name, out=out, field="track") for name in names]


def named_dataset(data: DataSet | str | None) -> tuple[dict[str, str], DataSet | None]:
    """Return a data set's name as a field of a config, empty without one, and the data set itself if it is loaded."""
    if data is None or isinstance(data, str):
        return ({} if data is None else {"data": data}), None
    return {"data": data.name}, data


def with_paths_of_runs(config: AblationConfig) -> AblationConfig:
    """Return the config with paths in place of names of runs, such as ``spec=best``, which change their meaning.

    The name of a search is replaced by its winner.

    Raises:
        InputError: no such run or search.
    """
    from budgetnet.study.choices import path_of_run

    if config.of is not None:
        from budgetnet.api.search_winner import find_winner
        from budgetnet.study.run_names import is_run_name, run_path

        out, storage = config.out, config.storage
        of = find_winner(config.of, out=out, storage=storage) if isinstance(config.of, str) else config.of
        # A run is looked for beside those of the search.
        base = str(run_path(config.base, out=out, storage=storage)) if is_run_name(config.base) else config.base
        return config.replace(of=of, base=base)

    def with_path(text: str) -> str:
        if not text.startswith("spec="):
            return text
        return f"spec={path_of_run(text.removeprefix('spec='), out=config.out, storage=config.storage)}"

    change = [with_path(text) for text in config.change]
    return config if tuple(change) == config.change else config.replace(change=change)
