"""Recipes that have names."""

from __future__ import annotations

from budgetnet.common.documents import look_up
from budgetnet.common.files import names_a_file
from budgetnet.runs.augmentation import Augmentation
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import EarlyStopping, Lookahead, Muon, Schedule

NAMED: dict[str, Recipe] = {
    # As the paper is written; the values that it leaves open are those of its public notebook.
    "paper": Recipe(name="paper"),
    # What that notebook did: its scheduler is never stepped, its split drawn anew each epoch, its patience for a loss
    # on training images. It leaks; kept to show by how much.
    "as-run": Recipe(
        name="as-run",
        schedule=Schedule(kind="constant"),
        early_stopping=EarlyStopping(monitor="training-loss"),
        validation_split="each-epoch",
        augmented_validation=True,
    ),
    # Options that paid in a measured comparison (docs/performance.md), for a training of fixed length.
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
    # Options of the fastest published trainings (docs/decisions/0015), for a training of few epochs. Provisional: from
    # single trainings, until studies/fast-recipe has settled which of them pay.
    "fast": Recipe(
        name="fast",
        learning_rate=0.2,
        momentum=0.85,
        nesterov=True,
        label_smoothing=0.2,
        batch_size=512,
        epochs=10,
        schedule=Schedule(kind="linear", first_cycle=10, warmup_fraction=0.1),
        early_stopping=None,
        augmentation=Augmentation(crop_padding=2, padding_mode="reflect", alternating_flip=True),
        norm_bias_rate=16,
        norm_momentum=0.4,
        initialisation="dirac",
        lookahead=Lookahead(),
        muon=Muon(learning_rate=0.12),
        test_time_flip=True,
        test_time_shifts=True,
    ),
    # For candidates of a search: cycles of 2, 4, 8 and 16 epochs, at whose ends they are compared.
    "search": Recipe(
        name="search",
        learning_rate=0.05,
        nesterov=True,
        label_smoothing=0.1,
        epochs=30,
        schedule=Schedule(first_cycle=2, cycle_factor=2),
    ),
    # The paper's optimiser for 8x8 digits: mirrored digits are other signs, and 4 pixels of padding hide half of one.
    "digits": Recipe(
        name="digits",
        learning_rate=0.05,
        epochs=7,
        schedule=Schedule(first_cycle=1, cycle_factor=2),
        augmentation=Augmentation(crop_padding=1, flip=False),
    ),
}


def default_recipe(data: str, *, other: str) -> str:
    """The name of the recipe that a data set is trained by where none is named: the digits have one of their own."""
    return "digits" if data == "digits" else other


def named_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: no recipe has that name.
    """
    return look_up(name, NAMED, field="recipe", missing="no such recipe, and no such file")


def find_recipe(text: str) -> Recipe:
    """Return the recipe of that name, or in that YAML or JSON file.

    Raises:
        InputError: no such name or file, or a file that breaks a rule.
    """
    return Recipe.load(text) if text not in NAMED and names_a_file(text) else named_recipe(text)
