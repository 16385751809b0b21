"""The config of a search: every option of ``budgetnet search`` and of `budgetnet.search`, with its default."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import ModelWrapValidatorHandler, model_validator

from budgetnet.common.config import (
    Count,
    CountOrZero,
    Data,
    DeviceName,
    Duration,
    EngineOptions,
    Name,
    OnCommandLine,
    OptionalCount,
    OptionalFile,
    OptionalLatency,
    OptionalLimit,
    OptionalSize,
    Petaflops,
    Seed,
    Trackers,
    Url,
)
from budgetnet.common.errors import named
from budgetnet.model.budget import Budget, Sizing
from budgetnet.model.deployed.weights import Precision
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import find_spec
from budgetnet.runs.named_recipes import default_recipe, find_recipe
from budgetnet.runs.recipe import Recipe
from budgetnet.study.choices import (
    Networks,
    Objectives,
    RecipeChoice,
    SpaceChoice,
    path_of_enqueued,
    require_space_name,
)
from budgetnet.study.objectives import (
    ACCURACY,
    WAYS_WITH_COSTS,
    CostName,
    require_device,
    require_ways_with_costs,
    with_ways,
)

if TYPE_CHECKING:
    from budgetnet.study.space import SearchSpace

SamplerName = Literal["surrogate", "tpe", "gp", "nsga2", "random"]
PrunerName = Literal["asha", "hyperband", "median", "none"]
ZOO = "zoo"
"""Enqueue every named network that fits the budget."""


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
    """Most parameters of a network, frozen ones included; unlimited: no limit."""
    max_macs: OptionalLimit = None
    """Most multiply-accumulates for one image."""
    max_activations: OptionalLimit = None
    """Most output elements of convolutions and the linear layer for one image."""
    max_weights: OptionalSize = None
    """Most bytes of the deployed network's weights, such as 512K, where K is 1024 bytes."""
    weight_precision: Precision = "float32"
    """Precision that max_weights counts weights in: float32, float16 or int8."""
    max_peak_memory: OptionalSize = None
    """Most bytes of the deployed network's maps at once, for one image, such as 1M, where M is 1024 K."""
    max_latency_ms: OptionalLatency = None
    """Longest time that the deployed network takes on the device of device_file: 2ms, 0.5ms, or a number of ms."""
    device_file: OptionalFile = None
    """File of the device that networks are deployed on, from `budgetnet device measure`."""
    data: Data = "digits"
    """Data set: digits, cifar10, cifar100, mnist, fashion-mnist, kmnist, svhn, stl10, NAME:PATH for one of these in a
    folder, folder:PATH or arrays:PATH.npz."""
    objectives: Objectives = (ACCURACY,)
    """What to search for: accuracy, and any of params, macs, activations, weights, peak_memory and latency, which are
    minimised: accuracy,macs. latency needs its limit and a device file. The result is then a front, with other
    defaults: sizing scale, as fit makes all networks equally large, sampler tpe and pruner none."""
    trials: Count = 6
    """Number of trained candidates that the study shall have, those of earlier searches included."""
    timeout: Duration = None
    """Time after which to stop, within a training step: 90s, 30m, 1.5h, or a number of seconds. Finalists are then not
    begun; their own training has no limit."""
    max_train_flops: Petaflops = None
    """Most PFLOP (1e15 floating-point operations) of training of all candidates together, those of earlier searches
    included; a candidate that could exceed it is not started. Finalists are not counted. Default: unlimited."""
    space: SpaceChoice = "resnet"
    """Search space: resnet, paper, mobile, regnet, or a YAML or JSON file."""
    sizing: Sizing = "fit"
    """How widths meet the budget. fit: solve for them. scale: solve for a sampled share of it. reject: sample them."""
    sampler: SamplerName = "surrogate"
    """Sampler of candidates: surrogate (a model of closed-form features, for one objective), tpe, gp, nsga2 or
    random."""
    pruner: PrunerName = "asha"
    """Pruner, which stops candidates at the end of a cycle of the learning rate: asha, hyperband, median or none.
    With several objectives none, as pruners compare accuracy alone."""
    enqueue: Networks = ()
    """Network to train first: a name, a file or a run, such as STUDY#3; again for more. zoo: every named network for
    small images that fits."""
    recipe: RecipeChoice = None
    """Recipe that candidates are trained with: a name or a file. Default: digits for the digits, else search."""
    epochs: OptionalCount = None
    """Epochs in place of the recipe's; the schedule is stretched to end with the last one."""
    finalists: CountOrZero = 0
    """Number of the best candidates to train in full, with the test set opened for them at the end. With several
    objectives: the most accurate on the front."""
    final_seeds: Count = 3
    """Trainings of each finalist, each with its own seed."""
    final_recipe: RecipeChoice = None
    """Recipe that finalists are trained with: a name or a file. Default: digits for the digits, else modern."""
    final_epochs: OptionalCount = None
    """Epochs in place of the final recipe's."""
    study: Name = None
    """Name of the study. Default: a name made from the config, so that the same search finds its study again."""
    storage: Url = None
    """Storage of studies, as any SQLAlchemy URL. Default: an SQLite file in the folder of run folders."""
    seed: Seed = 0
    """Seed of everything that is sampled."""
    out: Annotated[Path, OnCommandLine("DIR")] = Path("runs")
    """Folder of run folders and of the study's SQLite file."""
    device: DeviceName = "auto"
    """Device to train on: auto, cuda, mps or cpu."""
    train_size: OptionalCount = None
    """Number of training images to use. Default: all."""
    validation_size: OptionalCount = None
    """Number of held-out images to validate on. Default: all."""
    track: Trackers = ()
    """Tracker of runs: tensorboard[:FOLDER] or mlflow[:URI]; again for more. Default place: in the folder of runs."""

    @model_validator(mode="wrap")
    @classmethod
    def _choose_ways(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, dict):
            return handler(given)
        config = handler(with_ways(given))
        # Defaults that `replace` chooses anew, as it may change the objectives.
        config.model_fields_set.intersection_update(given)
        return config

    @model_validator(mode="after")
    def _ways_know_costs(self) -> Self:
        if self.costs:
            require_ways_with_costs(sampler=self.sampler, pruner=self.pruner)
            require_device(self.costs, max_latency_ms=self.max_latency_ms)
        return self

    def default_of(self, name: str) -> Any:
        """Return the default of a field, with this config's objectives."""
        ways = WAYS_WITH_COSTS if self.costs else {}
        return ways[name] if name in ways else super().default_of(name)

    @property
    def costs(self) -> tuple[CostName, ...]:
        """Costs that are minimised, in the order of the objectives; empty if accuracy is the only objective."""
        return tuple(name for name in self.objectives if name != ACCURACY)

    @model_validator(mode="after")
    def _limits_belong_together(self) -> Self:
        _ = self.budget
        return self

    @property
    def budget(self) -> Budget:
        """Limits on the cost of a candidate."""
        return Budget(**{name: getattr(self, name) for name in Budget.model_fields})

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
        if isinstance(self.space, dict):
            from budgetnet.study.space import SearchSpace

            return SearchSpace.from_mapping(self.space)
        from budgetnet.study.space.named import find_space

        return find_space(self.space)

    @functools.cached_property
    def enqueued(self) -> tuple[ModelSpec | str, ...]:
        """Networks to train first; ``zoo`` means every named network that fits.

        Raises:
            InputError: no such network, file or run, or a file that breaks a rule.
        """
        enqueued = self.with_paths_of_runs().enqueue
        with named("enqueue"):
            return tuple(each if isinstance(each, ModelSpec) or each == ZOO else find_spec(each) for each in enqueued)

    def with_paths_of_runs(self) -> SearchConfig:
        """Return the config with paths in place of names of runs, such as ``STUDY#best``, which change their meaning.

        Raises:
            InputError: no such run.
        """
        with named("enqueue"):
            paths = tuple(
                path_of_enqueued(each, out=self.out, storage=self.storage) if isinstance(each, str) else each
                for each in self.enqueue
            )
        return self if paths == self.enqueue else self.replace(enqueue=paths)

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

        The result reproduces the whole study in one command: of two limits on training operations, it has the larger,
        and no timeout, which was that of one of several searches.

        Args:
            earlier: config that the study was stored with.
        """
        before, now = earlier.max_train_flops, self.max_train_flops
        kept: dict[str, Any] = {
            "trials": max(earlier.trials, self.trials),
            "timeout": None,
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
