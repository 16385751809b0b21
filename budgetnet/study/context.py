"""What a search needs: its settings, data, storage and engine, and when it stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from optuna.storages import RDBStorage

from budgetnet.common.errors import InputError
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.choice import LOCAL, EngineChoice, make_engine
from budgetnet.engines.jobs import Engine
from budgetnet.model.proxy import proxy_spec
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe, require_reliable_validation
from budgetnet.study.config import SearchConfig
from budgetnet.study.lock import StudyLock
from budgetnet.study.settings import StudySettings
from budgetnet.study.space import SearchSpace, feasibility
from budgetnet.study.space.images import check_image_size, check_num_steps, check_optimizer
from budgetnet.training.devices import choose_precision


class Plan(NamedTuple):
    """When a search stops, and what it trains first."""

    trials: int
    """Number of trained candidates to reach, those of earlier searches included."""
    enqueued: tuple[ModelSpec, ...] = ()
    """Networks to train first, unchanged."""
    deadline: float | None = None
    """Time to stop at, on the clock of `time.time`. Default: never."""
    max_train_flops: float | None = None
    """Most training operations of all candidates, those of earlier searches included, in PFLOP. Default: unlimited."""


class SearchContext(NamedTuple):
    """Settings of a study, with its data, storage, folder and engine."""

    settings: StudySettings
    """Space, budget, recipe, data and seed."""
    data: TrainingData
    """Training and validation images, where the engine needs them."""
    study_name: str
    """Name of the study in the storage."""
    storage: RDBStorage
    """Storage of the study."""
    out: Path
    """Folder of run folders."""
    engine_choice: EngineChoice = LOCAL
    """Engine that trains, and its number of workers."""

    @property
    def device(self) -> torch.device:
        """Device to train on."""
        return torch.device(self.settings.device)

    @property
    def lock(self) -> StudyLock:
        """The lock of the study."""
        return StudyLock(self.storage, self.study_name, self.out)

    @property
    def engine(self) -> Engine:
        """A new engine."""
        return make_engine(self.engine_choice, self.data, out=self.out, device=self.device)


def make_settings(data: TrainingData, config: SearchConfig, *, device: torch.device | None = None) -> StudySettings:
    """Return the settings of a search, with its device and precision.

    Args:
        data: training and validation images.
        config: options of the search.
        device: device to train on. Default: the device of the images.

    Raises:
        InputError: a recipe, space or file that the config names is missing or breaks a rule, or the recipe validates
            on images that it trains on, so that candidates cannot be ranked.
    """
    recipe = config.candidate_recipe
    require_reliable_validation(recipe, field="recipe")
    device = device or data.train.images.device
    return StudySettings(
        config=config,
        space=config.search_space,
        recipe=recipe,
        data=data.record,
        device=device.type,
        precision=choose_precision(recipe.precision, device),
        deployed_on=None if config.max_latency_ms is None else config.budget.device.digest,
    )


def require_feasible(settings: StudySettings, data: TrainingData) -> None:
    """Require that every candidate can be trained, also as a finalist, and the smallest one fits the budget.

    Raises:
        OverBudgetError: not even the smallest network that may be proposed fits.
        InputError: widths are to be fitted to a budget without limits, or some candidate could not be trained on so
            many images of this size.
    """
    check_optimizer(settings.space, settings.recipe)
    _require_trainable(settings.space, settings.recipe, data)
    if settings.config.finalists:
        with of_final_recipe():
            _require_trainable(settings.space, settings.config.finalist_recipe, data)
    sizing = settings.config.sizing
    if sizing != "reject" and not settings.budget.allowed:
        raise InputError("sizing", sizing, "needs a limit to fit widths to, such as 5M parameters")
    feasibility.require_feasible(
        settings.space,
        settings.budget,
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        fitted=sizing != "reject",
    )


@contextmanager
def of_final_recipe() -> Iterator[None]:
    """Raise errors of a recipe as those of the final recipe."""
    try:
        yield
    except InputError as error:
        raise InputError(f"final_recipe.{error.field}", error.value, error.rule) from None


def _require_trainable(space: SearchSpace, recipe: Recipe, data: TrainingData) -> None:
    check_image_size(space, recipe, input_shape=data.input_shape)
    check_num_steps(space, recipe, images=len(data.train))
    if recipe.example_filter is not None:
        # Raises InputError if the images are too small for the proxy.
        proxy_spec(input_shape=data.input_shape, num_classes=data.num_classes)
