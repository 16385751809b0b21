"""Configs of reproductions: the options of ``budgetnet reproduce reference`` and its like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, model_validator

from budgetnet.common.config import (
    Data,
    DeviceName,
    EngineOptions,
    OnCommandLine,
    OptionalCount,
    OptionalLimit,
    Seed,
    Trackers,
)
from budgetnet.common.documents import parse_count
from budgetnet.common.errors import InputError
from budgetnet.runs.named_recipes import find_recipe
from budgetnet.runs.recipe import Recipe

MAX_SEEDS = 1_000
"""Largest number of seeds of a reproduction."""


def _seed_count(value: object) -> int:
    count = parse_count(value, field="")
    if count > MAX_SEEDS:
        raise ValueError(f"must be at most {MAX_SEEDS:,}")
    return count


def _member_count(value: object) -> int:
    count = _seed_count(value)
    if count < 2:
        raise ValueError("must be two or more")
    return count


SeedCount = Annotated[int, BeforeValidator(_seed_count), OnCommandLine("N")]
MemberCount = Annotated[int, BeforeValidator(_member_count), OnCommandLine("N")]
SpecName = Annotated[str, OnCommandLine("SPEC")]
RecipeName = Annotated[str, OnCommandLine("RECIPE")]


class ReproductionConfig(EngineOptions):
    """Options common to all reproductions.

    Raises:
        InputError: on construction, when a field is unknown or breaks its rule.
    """

    document_kind: ClassVar[str] = "reproduction config"

    data: Data = "cifar10"
    """Data set: cifar10, cifar10:PATH, digits, folder:PATH or arrays:PATH.npz."""
    declare: Annotated[Literal["cifar10"] | None, OnCommandLine("cifar10")] = None
    """Vouch for the images being CIFAR-10; the verdict then says that you did."""
    epochs: OptionalCount = None
    """Epochs in place of the recipe's; the schedule is stretched to end with the last one."""
    seed: Seed = 0
    """First seed; the others follow it."""
    train_size: OptionalCount = None
    """Number of training images to use. Default: all."""
    validation_size: OptionalCount = None
    """Number of held-out images to validate on. Default: all."""
    out: Annotated[Path, OnCommandLine("DIR")] = Path("runs")
    """Folder of run folders."""
    device: DeviceName = "auto"
    """Device to train on: auto, cuda, mps or cpu."""
    track: Trackers = ()
    """Tracker of runs: tensorboard[:FOLDER] or mlflow[:URI]; again for more. Default place: in the folder of runs."""

    @property
    def declared(self) -> bool:
        """Whether the user declares the images to be CIFAR-10."""
        return self.declare is not None

    seed_field: ClassVar[str] = "seeds"
    """Name of the field that holds the number of trainings of each network."""

    @property
    def seed_count(self) -> int:
        """Number of trainings of each network."""
        return int(getattr(self, self.seed_field))

    @property
    def seed_numbers(self) -> list[int]:
        """The seeds to train each network with."""
        return list(range(self.seed, self.seed + self.seed_count))

    @model_validator(mode="after")
    def _has_room_for_seeds(self) -> Self:
        if self.seed + self.seed_count > 2**32:
            raise InputError("seed", self.seed, f"must leave room for {self.seed_count} seeds up to 2**32 - 1")
        return self

    def trained_by(self, recipe: str) -> Recipe:
        """Return a recipe by its name or file, with the epochs of this config.

        Raises:
            InputError: no such recipe or file, or a file that breaks a rule.
        """
        found = find_recipe(recipe)
        return found if self.epochs is None else found.with_epochs(self.epochs)


class ReferenceConfig(ReproductionConfig):
    """Options of the reproduction of the published reference."""

    command: ClassVar[str] = "reproduce reference"

    recipe: RecipeName = "paper"
    """Recipe: paper, as-run, or another name or file."""
    seeds: SeedCount = 1
    """Trainings of the network, each with its own seed."""


class LeakageConfig(ReproductionConfig):
    """Options of the reproduction of the leakage, with two recipes."""

    command: ClassVar[str] = "reproduce leakage"

    spec: SpecName = "reference"
    """Network: a name, a file or a run; another than the reference is quicker."""
    seeds: SeedCount = 3
    """Trainings by each recipe, each with its own seed."""


class LadderConfig(ReproductionConfig):
    """Options of the reproduction of the ladder of four networks."""

    command: ClassVar[str] = "reproduce ladder"

    recipe: RecipeName = "paper"
    """Recipe: paper, as-run, or another name or file."""
    seeds: SeedCount = 3
    """Trainings of each network, each with its own seed."""


class EnsembleConfig(ReproductionConfig):
    """Options of the reproduction of the ensemble."""

    command: ClassVar[str] = "reproduce ensemble"
    seed_field: ClassVar[str] = "members"

    spec: SpecName = "ladder-small"
    """Network of the members: a name, a file or a run; the paper names none."""
    members: MemberCount = 5
    """Number of networks to average, each trained with its own seed."""
    recipe: RecipeName = "paper"
    """Recipe: paper, as-run, or another name or file."""
    max_params: OptionalLimit = 5_000_000
    """Most parameters of all members together; unlimited: no limit."""
