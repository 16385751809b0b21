"""Check that every network and recipe of a space can be trained, and on images of a given size."""

from __future__ import annotations

from budgetnet.common.errors import InputError
from budgetnet.runs.recipe import Recipe
from budgetnet.study.space.document import SearchSpace
from budgetnet.study.space.networks import choice_text, stem_output
from budgetnet.study.space.recipes import OF_SGD, PREFIX, Range, override
from budgetnet.study.space.structure import strides_of


def check_image_size(space: SearchSpace, recipe: Recipe, *, input_shape: tuple[int, int, int]) -> None:
    """Require that every candidate of a space and a recipe can be trained on the images.

    Args:
        space: what is proposed.
        recipe: how candidates are trained, apart from the values that the space varies.
        input_shape: image as (channels, height, width).

    Raises:
        InputError: the largest padding that may be proposed is as large as the images and cannot be filled by
            reflection, or the smallest training images of progressive resizing have fewer pixels than the strides of
            the deepest network need.
    """
    height, width = input_shape[1:]
    _with_largest(space, recipe, "augmentation.crop_padding").check_image_size(height, width)
    if recipe.resizing is not None:
        if recipe.side(1, full=height) < height and any(head.get("pool_size") for head in space.heads):
            rule = "does not go with heads of a pool_size, which make as many features as the last map has windows"
            raise InputError("resizing.start", recipe.resizing.start, rule)
        count, full_size = space.stages[1], space.full_size_stages[0]
        smallest = recipe.side(1, full=height)
        afters = [
            [min(stem_output(choice_text(stem), (input_shape[0], side, side))) for side in (smallest, height)]
            for stem in space.stems
        ]
        if any(strides_of(count, full_size, small) != strides_of(count, full_size, large) for small, large in afters):
            rule = f"is too small for the space: its deepest network halves images of {height} pixels more often"
            raise InputError("resizing.start", recipe.resizing.start, rule)


def check_num_steps(space: SearchSpace, recipe: Recipe, *, images: int) -> None:
    """Require that every candidate of a space and a recipe is trained in enough steps.

    Args:
        space: what is proposed.
        recipe: how candidates are trained, apart from the values that the space varies.
        images: number of training images.

    Raises:
        InputError: with the largest batches, Lookahead would synchronise fewer than ten times.
    """
    _with_largest(space, recipe, "batch_size").check_num_steps(images)


def _with_largest(space: SearchSpace, recipe: Recipe, field: str) -> Recipe:
    """Return the recipe with the largest of a field's values that the space may propose."""
    values = space.recipe.get(field, ())
    choices = [values.high] if isinstance(values, Range) else [value for value in values if value is not None]
    return override(recipe, {field: max(choices)}) if choices else recipe


def check_optimizer(space: SearchSpace, recipe: Recipe) -> None:
    """Require that the recipe's optimiser uses the values that a space varies.

    Raises:
        InputError: the space varies a value of SGD, and the recipe has another optimiser.
    """
    kind = recipe.optimizer.kind
    for name in OF_SGD:
        if name in space.recipe and kind != "sgd":
            values = space.recipe[name]
            shown = values.to_mapping() if isinstance(values, Range) else list(values)
            raise InputError(PREFIX + name, shown, f"cannot vary: the recipe's optimiser is {kind}, not sgd")
