"""Named recipes: ``paper``, ``as-run``, ``modern``, ``fast``, ``search`` and ``digits``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from budgetnet.common.documents import look_up
from budgetnet.common.errors import InputError
from budgetnet.common.files import is_file_path
from budgetnet.runs.augmentation import Augmentation
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import EarlyStopping, Muon, Schedule

NAMED: dict[str, Recipe] = {
    # As described in the paper; values that it does not state are those of its public notebook.
    "paper": Recipe(name="paper"),
    # As executed by that notebook: the scheduler is never stepped, the split is resampled in each epoch, and early
    # stopping monitors the training loss. Has data leakage; kept to measure its effect.
    "as-run": Recipe(
        name="as-run",
        schedule=Schedule(kind="constant"),
        early_stopping=EarlyStopping(monitor="training-loss"),
        validation_split="each-epoch",
        augmented_validation=True,
    ),
    # Options that improved accuracy in an ablation (docs/performance.md), for training of fixed length.
    "modern": Recipe(
        name="modern",
        learning_rate=0.05,
        nesterov=True,
        label_smoothing=0.1,
        test_time_flip=True,
        epochs=60,
        schedule=Schedule(kind="one-cycle", first_cycle=60, warmup_fraction=0.2),
        early_stopping=None,
    ),
    # A plain recipe with the options that helped three kinds of networks in studies/fast-recipe, for few epochs.
    "fast": Recipe(
        name="fast",
        learning_rate=0.1,
        nesterov=True,
        batch_size=256,
        epochs=10,
        schedule=Schedule(first_cycle=10),
        early_stopping=None,
        augmentation=Augmentation(crop_padding=2, padding_mode="reflect"),
        norm_bias_rate=64,
        norm_momentum=0.4,
        muon=Muon(learning_rate=0.24),
        test_time_flip=True,
    ),
    # For the trials of a search: cycles of 2, 4, 8 and 16 epochs, after each of which trials are compared.
    "search": Recipe(
        name="search",
        learning_rate=0.05,
        nesterov=True,
        label_smoothing=0.1,
        epochs=30,
        schedule=Schedule(first_cycle=2, cycle_factor=2),
    ),
    # The paper's optimiser for 8x8 digits: no flips, as a flipped digit is not a digit, and padding for small images.
    "digits": Recipe(
        name="digits",
        learning_rate=0.05,
        epochs=7,
        schedule=Schedule(first_cycle=1, cycle_factor=2),
        augmentation=Augmentation(crop_padding=1, flip=False),
    ),
}


def default_recipe(data: str, *, other: str) -> str:
    """Return the name of the default recipe of a data set: ``digits`` for the digits, otherwise ``other``."""
    return "digits" if data == "digits" else other


def named_recipe(name: str) -> Recipe:
    """Return the recipe with this name.

    Raises:
        InputError: there is no recipe with this name.
    """
    return look_up(name, NAMED, field="recipe", missing="no such recipe, and no such file")


def find_recipe(text: str) -> Recipe:
    """Return the recipe of that name, or in that YAML or JSON file.

    Raises:
        InputError: no such name or file, or a file that breaks a rule.
    """
    return Recipe.load(text) if text not in NAMED and is_file_path(text) else named_recipe(text)


_SHOWN = 3
"""Values that a description of a recipe lists."""


def describe_recipe(recipe: Recipe) -> str:
    """Return a recipe's name, or the named recipe that is closest to it and the values that differ.

    Such as ``paper, with learning_rate 0.03``. The number of epochs and what follows from it are left out: they are
    shown beside the recipe.
    """
    if recipe.name and recipe.name not in NAMED:
        return recipe.name
    among = [NAMED[recipe.name]] if recipe.name else NAMED.values()
    changes = {known.name: _changes(recipe, known) for known in among}
    name = min(changes, key=lambda each: len(changes[each]))
    shown, more = changes[name][:_SHOWN], len(changes[name][_SHOWN:])
    listed = ", ".join(shown) + (f" and {more} more" if more else "")
    return f"{name}, with {listed}" if shown else name


def _changes(recipe: Recipe, known: Recipe) -> list[str]:
    with suppress(InputError):  # Its schedule cannot be stretched to so few epochs.
        known = known.with_epochs(recipe.epochs)
    left_out = {"name", "epochs"}
    return list(_differing(recipe.model_dump(exclude=left_out), known.model_dump(exclude=left_out)))


def _differing(own: dict[str, Any], other: dict[str, Any], group: str = "") -> Iterator[str]:
    """Yield each value that differs, with its path."""
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(other[key], dict):
            yield from _differing(value, other[key], f"{group}{key}.")
        elif value != other[key]:
            yield f"{group}{key}" if isinstance(value, dict) else f"{group}{key} {_as_text(value)}"


def _as_text(value: Any) -> str:
    if isinstance(value, float):  # A drawn one has 17 digits.
        return f"{value:.4g}"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
