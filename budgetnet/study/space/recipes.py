"""Recipe values that a space may vary: parsing, distributions, and overriding the recipe of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BeforeValidator

from budgetnet.common.documents import Document, field_path, look_up, real_number
from budgetnet.common.errors import InputError
from budgetnet.runs.augmentation import Augmentation
from budgetnet.runs.recipe import Recipe

PREFIX = "recipe."
"""Prefix of the names of sampled recipe values."""
VARIABLE = (
    "learning_rate",
    "weight_decay",
    "momentum",
    "batch_size",
    "label_smoothing",
    "nesterov",
    "weight_average",
    "gradient_clipping",
    "stochastic_depth",
    "test_time_flip",
    "augmentation.crop_padding",
    "augmentation.flip",
    "augmentation.alternating_flip",
    "augmentation.cutout",
)
"""Fields of a recipe that may vary. Epochs, schedule, early stopping, split and precision may not, because candidates
would not be comparable."""

OF_SGD = ("momentum", "nesterov")
"""Fields among them that only SGD uses."""

Choice = bool | int | float | None


def _number(value: object) -> object:
    """Validate a number; an int stays an int, which `real_number` would turn into a float."""
    checked = real_number(value)
    return value if isinstance(value, int) else checked


Number = Annotated[int | float, BeforeValidator(_number)]


class Range(Document):
    """Range of numbers, including both ends; whole numbers if the recipe's field is whole."""

    low: Number
    """Smallest value."""
    high: Number
    """Largest value."""
    log: bool = False
    """Whether to sample on a logarithmic scale."""


RecipeValues = tuple[Choice, ...] | Range
"""Choices, or a range."""


def read_recipe_values(value: object) -> dict[str, RecipeValues]:
    """Return the values that a space varies, as validated by the recipe's fields.

    Raises:
        InputError: a field may not vary, or a choice or an end of a range breaks the rule of its field.
        ValueError: it is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping of fields")
    return {_variable(name, given): _values(name, given) for name, given in value.items()}


def _variable(name: object, given: object) -> str:
    text = str(name)
    if text.partition(".")[0] in Recipe.model_fields.keys() - {known.partition(".")[0] for known in VARIABLE}:
        raise InputError(text, given, "must be the same for all candidates")
    try:
        return look_up(text, dict(zip(VARIABLE, VARIABLE, strict=True)), field="", missing="no field that may vary")
    except InputError as error:
        raise InputError(field_path((text,)), given, error.rule) from None


def _values(name: str, given: object) -> RecipeValues:
    if isinstance(given, (list, tuple)):
        choices = tuple(_valid(name, choice) for choice in given)
        if not choices:
            raise InputError(name, list(given), "must have at least 1 entries")
        if len(set(choices)) < len(choices):
            raise InputError(name, list(given), "must not name a choice twice")
        return choices
    if not isinstance(given, (Mapping, Range)):
        raise InputError(name, given, "must be a list of choices, or a mapping with low and high")
    if isinstance(_default(name), bool):
        raise InputError(name, dict(given), "is on or off: must be a list of choices")
    try:
        asked = Range.from_mapping(dict(given))
    except InputError as error:
        raise InputError(f"{name}.{error.field}", error.value, error.rule) from None
    # Through the recipe's own field, so that what is whole there is whole here.
    checked = Range(low=_valid(name, asked.low), high=_valid(name, asked.high), log=asked.log)
    if checked.low > checked.high:
        raise InputError(name, [checked.low, checked.high], "must name the smaller number as low")
    if checked.log and checked.low <= 0:
        raise InputError(f"{name}.low", checked.low, "must be above 0 with log: true")
    return checked


def _default(name: str) -> object:
    outer, _, inner = name.rpartition(".")
    return getattr(Augmentation() if outer else Recipe(), inner)


def _valid(name: str, value: object) -> Any:
    """Return a value as validated by the recipe's field."""
    outer, _, inner = name.rpartition(".")
    try:
        document = Augmentation.from_mapping({inner: value}) if outer else Recipe.from_mapping({inner: value})
    except InputError as error:
        raise InputError(name, error.value, error.rule) from None
    return getattr(document, inner)


def recipe_distributions(recipe: Mapping[str, RecipeValues]) -> dict[str, BaseDistribution]:
    """Return the distribution of each varied value, by its name with the prefix."""
    return {PREFIX + name: _distribution(values) for name, values in recipe.items()}


def _distribution(values: RecipeValues) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def override(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some values replaced, without its name.

    An option is turned off if one that it needs is off: Nesterov momentum without momentum, alternating flips without
    flips, test-time shifts without test-time flips. Values of SGD are left out for another optimiser.

    Args:
        base: the recipe.
        values: new values by dotted field, without the prefix.
    """
    fields = base.model_dump(exclude={"name"})
    for name, value in values.items():
        if name in OF_SGD and base.optimizer.kind != "sgd":
            continue
        outer, _, inner = name.rpartition(".")
        (fields[outer] if outer else fields)[inner] = value
    if not fields["momentum"]:
        fields["nesterov"] = False
    if not fields["augmentation"]["flip"]:
        fields["augmentation"]["alternating_flip"] = False
    if not fields["test_time_flip"]:
        fields["test_time_shifts"] = False
    return Recipe.from_mapping(fields)
