"""The config of a search: every option of ``budgetnet search`` and of `budgetnet.search`, with its default."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from budgetnet.common.config import (
    Count,
    CountOrZero,
    Data,
    DeviceName,
    Duration,
    EngineOptions,
    OnCommandLine,
    OptionalCount,
    OptionalLimit,
    Petaflops,
    Seed,
    Threads,
    Trackers,
    Url,
    path_as_text,
    several,
)
from budgetnet.common.documents import Document, look_up
from budgetnet.common.errors import InputError, named
from budgetnet.common.files import exists, is_file_path
from budgetnet.model.budget import Budget, Sizing
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import ENTRIES, find_spec, get
from budgetnet.runs.named_recipes import NAMED as RECIPES
from budgetnet.runs.named_recipes import default_recipe, find_recipe
from budgetnet.runs.recipe import Recipe

if TYPE_CHECKING:
    from budgetnet.study.space import SearchSpace

SamplerName = Literal["surrogate", "tpe", "gp", "nsga2", "random"]
PrunerName = Literal["asha", "hyperband", "median", "none"]

SPACES = ("resnet", "paper", "mobile", "regnet")
"""Names of search spaces."""
NO_SPACE = "no such space, and no such file"
ZOO = "zoo"
"""Enqueue every named network that fits the budget."""


def require_space_name(text: str) -> None:
    """Check a text that is not a file, without loading the space.

    Raises:
        InputError: there is no space of this name.
    """
    if not is_file_path(text):
        look_up(text, dict.fromkeys(SPACES), field="space", missing=NO_SPACE)


def _read_recipe(value: object) -> object:
    """Accept a recipe, its name or its file; a named recipe is stored by its name."""
    if isinstance(value, Mapping):
        value = Recipe.from_mapping(dict(value))
    if isinstance(value, Recipe):
        return value.name if value.name in RECIPES and RECIPES[value.name].digest == value.digest else value
    return None if value is None else _text(value, what="recipe")


def _read_networks(value: object) -> object:
    return tuple(map(_read_network, several(value)))


def _read_network(value: object) -> object:
    """Accept a network, its name or its file; a named network is stored by its name."""
    if isinstance(value, Mapping):
        value = ModelSpec.from_mapping(dict(value))
    if isinstance(value, ModelSpec):
        return value.name if value.name in ENTRIES and get(value.name) == value else value
    text = _text(value, what="specification")
    if _may_name_run(text) and Path(text).name.split("#")[0] in ("", "best"):
        # The same command would name another network as soon as this search is the most recent study.
        rule = "names a run of the most recent study, which will be this one; write STUDY#best or STUDY#3"
        raise InputError("", text, rule)
    return path_of_run(text)


def _may_name_run(text: str) -> bool:
    return ("#" in text or Path(text).name == "best") and not exists(Path(text))


def path_of_run(text: str) -> str:
    """Return the path of the run that a text names, such as ``STUDY#3``; another text as it is.

    Raises:
        InputError: there is no such run.
        RecordError: there is no such study.
    """
    if not _may_name_run(text):
        return text
    # Imports Optuna, which takes a second that other names can save.
    from budgetnet.study.run_names import is_run_name, run_path

    return str(run_path(text)) if is_run_name(text) else text


def _read_space(value: object) -> object:
    """Accept a space, its name or its file; a named space is stored by its name, others as plain data."""
    if isinstance(value, Mapping):
        from budgetnet.study.space import SearchSpace

        value = SearchSpace.from_mapping(dict(value))
    if not isinstance(value, Document):
        return _text(value, what="space")
    from budgetnet.study.space.named import NAMED as SPACES

    return next((name for name, space in SPACES.items() if space == value), None) or value.to_mapping()


def _text(value: object, *, what: str) -> str:
    text = path_as_text(value)
    if not isinstance(text, str):
        raise ValueError(f"must be a name, a file or a {what}")
    return text


RecipeChoice = Annotated[
    str | Recipe | None,
    BeforeValidator(_read_recipe, json_schema_input_type=str | Recipe | None),
    OnCommandLine("RECIPE"),
]
# Plain data, because the document class imports Optuna, which takes a second that other commands can save.
SpaceChoice = Annotated[
    str | dict[str, Any],
    BeforeValidator(_read_space, json_schema_input_type=str | dict[str, Any]),
    OnCommandLine("SPACE"),
]
Networks = Annotated[
    tuple[str | ModelSpec, ...],
    BeforeValidator(_read_networks, json_schema_input_type=tuple[str | ModelSpec, ...] | str),
    OnCommandLine("SPEC"),
]


class SearchConfig(EngineOptions):
    """Options of a search.

    Names and files of recipes, spaces and networks are stored as given and read when the search starts.

    Raises:
        InputError: on construction, when a field is unknown or breaks its rule.
    """

    document_kind: ClassVar[str] = "search config"
    command: ClassVar[str] = "search"
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {
            *("trials", "timeout", "max_train_flops", "enqueue"),
            *("finalists", "final_seeds", "final_recipe", "final_epochs"),
            *("study", "storage", "out", "threads", "engine", "workers", "per_gpu", "store", "track"),
        }
    )
    """Fields that may change when a study is resumed; all others must stay equal."""

    max_params: OptionalLimit = 5_000_000
    """Most trainable parameters of a network; unlimited: no limit."""
    max_macs: OptionalLimit = None
    """Most multiply-accumulates for one image."""
    max_activations: OptionalLimit = None
    """Most output elements of convolutions and the linear layer for one image."""
    data: Data = "digits"
    """Data set: digits, cifar10, cifar100, mnist, fashion-mnist, kmnist, svhn, stl10, NAME:PATH for one of these in a
    folder, folder:PATH or arrays:PATH.npz."""
    trials: Count = 6
    """Number of trained candidates that the study shall have, those of earlier searches included."""
    timeout: Duration = None
    """Time after which to stop, within a training step: 90s, 30m, 1.5h, or a number of seconds."""
    max_train_flops: Petaflops = None
    """Most PFLOP (1e15 floating-point operations) of training of all candidates together, those of earlier searches
    included; a candidate that could exceed it is not started. Finalists are not counted. Default: unlimited."""
    space: SpaceChoice = "resnet"
    """Search space: resnet, paper, mobile, regnet, or a YAML or JSON file."""
    sizing: Sizing = "fit"
    """How widths meet the budget. fit: solve for them. scale: solve for a sampled share of it. reject: sample them."""
    sampler: SamplerName = "surrogate"
    """Sampler of candidates: surrogate (a model of closed-form features), tpe, gp, nsga2 or random."""
    pruner: PrunerName = "asha"
    """Pruner, which stops candidates at the end of a cycle of the learning rate: asha, hyperband, median or none."""
    enqueue: Networks = ()
    """Network to train first: a name, a file or a run, such as STUDY#3; again for more. zoo: every named network that
    fits."""
    recipe: RecipeChoice = None
    """Recipe that candidates are trained with: a name or a file. Default: digits for the digits, else search."""
    epochs: OptionalCount = None
    """Epochs in place of the recipe's; the schedule is stretched to end with the last one."""
    finalists: CountOrZero = 0
    """Number of the best candidates to train in full, with the test set opened for them at the end."""
    final_seeds: Count = 3
    """Trainings of each finalist, each with its own seed."""
    final_recipe: RecipeChoice = None
    """Recipe that finalists are trained with: a name or a file. Default: digits for the digits, else modern."""
    final_epochs: OptionalCount = None
    """Epochs in place of the final recipe's."""
    study: str | None = None
    """Name of the study. Default: a name made from the config, so that the same search finds its study again."""
    storage: Url = None
    """Storage of studies, as any SQLAlchemy URL. Default: an SQLite file in the folder of run folders."""
    seed: Seed = 0
    """Seed of everything that is sampled."""
    out: Annotated[Path, OnCommandLine("DIR")] = Path("runs")
    """Folder of run folders and of the study's SQLite file."""
    device: DeviceName = "auto"
    """Device to train on: auto, cuda, mps or cpu."""
    threads: Threads = None
    """Threads of torch on a CPU; auto takes one or all, by a few measured steps. Default: all."""
    train_size: OptionalCount = None
    """Number of training images to use. Default: all."""
    validation_size: OptionalCount = None
    """Number of held-out images to validate on. Default: all."""
    track: Trackers = ()
    """Tracker of runs: tensorboard[:FOLDER] or mlflow[:URI]; again for more. Default place: in the folder of runs."""

    @property
    def budget(self) -> Budget:
        """Limits on the cost of a candidate."""
        return Budget(max_params=self.max_params, max_macs=self.max_macs, max_activations=self.max_activations)

    @functools.cached_property
    def candidate_recipe(self) -> Recipe:
        """Recipe of candidates, with the epochs of this config.

        Raises:
            InputError: no such recipe or file, or a file that breaks a rule.
        """
        return _recipe(self, "", default=default_recipe(self.data, other="search"))

    @functools.cached_property
    def finalist_recipe(self) -> Recipe:
        """Recipe of finalists, with the epochs of this config.

        Raises:
            InputError: no such recipe or file, or a file that breaks a rule.
        """
        return _recipe(self, "final_", default=default_recipe(self.data, other="modern"))

    @functools.cached_property
    def search_space(self) -> SearchSpace:
        """Search space.

        Raises:
            InputError: no such space or file, or a file that breaks a rule.
        """
        from budgetnet.study.space import SearchSpace
        from budgetnet.study.space.named import NAMED as SPACES
        from budgetnet.study.space.named import named_space

        if isinstance(self.space, dict):
            return SearchSpace.from_mapping(self.space)
        is_file = self.space not in SPACES and is_file_path(self.space)
        return SearchSpace.load(self.space) if is_file else named_space(self.space)

    @functools.cached_property
    def enqueued(self) -> tuple[ModelSpec | str, ...]:
        """Networks to train first; ``zoo`` means every named network that fits.

        Raises:
            InputError: no such network or file, or a file that breaks a rule.
        """
        with named("enqueue"):
            return tuple(
                each if isinstance(each, ModelSpec) or each == ZOO else find_spec(each) for each in self.enqueue
            )

    def require_names(self) -> None:
        """Check the names of data, recipes, networks and space, and read the files among them that load quickly.

        Raises:
            DataError: the data set's name is unknown.
            InputError: a name is unknown, or a file is missing or breaks a rule.
        """
        from budgetnet.data.names import check_name

        check_name(self.data)
        _ = self.candidate_recipe, self.finalist_recipe, self.enqueued
        # A space in a file is read when the search starts: its class imports Optuna.
        if isinstance(self.space, str):
            require_space_name(self.space)

    def resuming(self, earlier: SearchConfig) -> SearchConfig:
        """Return this config with the trials, enqueued networks and finals of an earlier search of the study.

        The result reproduces the whole study in one command: of two limits on training operations, it has the larger.

        Args:
            earlier: config that the study was stored with.
        """
        before, now = earlier.max_train_flops, self.max_train_flops
        kept: dict[str, Any] = {
            "trials": max(earlier.trials, self.trials),
            "enqueue": (*earlier.enqueue, *(each for each in self.enqueue if each not in earlier.enqueue)),
            "max_train_flops": None if before is None or now is None else max(before, now),
        }
        if not self.finalists:
            finals = ("finalists", "final_seeds", "final_recipe", "final_epochs")
            kept |= {name: getattr(earlier, name) for name in finals}
        return self.replace(**kept)


def _recipe(config: SearchConfig, prefix: str, *, default: str) -> Recipe:
    """The recipe of candidates, or of finalists, whose fields have a prefix."""
    chosen, epochs = getattr(config, f"{prefix}recipe"), getattr(config, f"{prefix}epochs")
    with named(f"{prefix}recipe"):
        chosen = default if chosen is None else chosen
        recipe = chosen if isinstance(chosen, Recipe) else find_recipe(chosen)
    with named(f"{prefix}epochs"):
        return recipe if epochs is None else recipe.with_epochs(epochs)
