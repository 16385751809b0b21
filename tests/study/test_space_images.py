"""Whether a space's candidates can be trained on images, against trying every one of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from support import TINY, TINY_SPACE, enlarged, prepare, tiny_recipe

from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.runs.augmentation import Augmentation, Resizing
from budgetnet.runs.optimizer import OptimizerChoice
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import Lookahead
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import make_settings, require_feasible
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.images import check_image_size
from budgetnet.training.trainer import identify


def accepted(space: SearchSpace, recipe: Recipe, *, side: int) -> bool:
    try:
        check_image_size(space, recipe, input_shape=(3, side, side))
    except InputError:
        return False
    return True


def every_candidate_is_built(space: SearchSpace, start: int, *, side: int) -> bool:
    columns = space.enumerate(0, space.size)
    for row in range(space.size):
        spec = space.spec(space.params_at(columns, row), input_shape=(3, side, side), num_classes=10)
        try:
            spec.replace(input_shape=(3, start, start)).build()
        except InputError:
            return False
    return True


@pytest.mark.parametrize("stages", [[1, 2], [4, 5], [5, 6]])
@pytest.mark.parametrize("full_size_stages", [[1, 1], [1, 2], [2, 3]])
def test_a_start_is_refused_where_some_candidate_cannot_take_it(stages: list[int], full_size_stages: list[int]) -> None:
    fixed = {"growth": [1.0], "blocks": [1, 1], "channels": [8, 8], "first_kernel_sizes": [3], "block_kinds": ["basic"]}
    space = SearchSpace.from_mapping({**fixed, "stages": stages, "full_size_stages": full_size_stages})
    found = {}
    for start in (8, 16, 32):
        found[start] = accepted(space, Recipe(resizing=Resizing(start=start)), side=32)
        assert found[start] == every_candidate_is_built(space, start, side=32)
    assert found[32]


def test_the_largest_padding_that_may_be_proposed_counts() -> None:
    recipe = Recipe(augmentation=Augmentation(padding_mode="reflect"))
    assert accepted(SearchSpace(), recipe, side=5)
    assert not accepted(SearchSpace(), recipe, side=4)
    for values in ([1, 7, 3], {"low": 1, "high": 7}):
        space = SearchSpace.from_mapping({"recipe": {"augmentation.crop_padding": values}})
        assert [accepted(space, recipe, side=side) for side in (7, 8)] == [False, True]
        assert accepted(space, Recipe(), side=7)


def test_a_search_is_refused_before_it_begins(digits: DataSet) -> None:
    recipe = tiny_recipe(resizing=Resizing(start=8))
    data = prepare(enlarged(digits), recipe)
    deep = SearchSpace.from_mapping({**TINY_SPACE, "stages": [1, 6]})
    settings = make_settings(data, SearchConfig(recipe=recipe, max_params="1M", space=deep))
    with pytest.raises(InputError, match=r"^resizing\.start = 8: is too small for the space"):
        require_feasible(settings, data)
    require_feasible(settings.model_copy(update={"space": SearchSpace.from_mapping(TINY_SPACE)}), data)


def test_heads_that_need_maps_of_one_size_are_refused(digits: DataSet) -> None:
    windows = SearchSpace.from_mapping({**TINY_SPACE, "heads": [{}, {"pool_size": 2}]})
    for start, fits in ((8, False), (16, True)):
        recipe = tiny_recipe(resizing=Resizing(start=start))
        data = prepare(enlarged(digits), recipe)
        settings = make_settings(data, SearchConfig(recipe=recipe, max_params="1M", space=windows))
        with (
            nullcontext() if fits else pytest.raises(InputError, match=r"^resizing\.start = 8: does not go with heads")
        ):
            require_feasible(settings, data)


def test_finalists_are_refused_before_the_search(digits: DataSet) -> None:
    recipe = tiny_recipe()
    data = prepare(enlarged(digits), recipe)
    deep = SearchSpace.from_mapping({**TINY_SPACE, "stages": [1, 6]})
    config = SearchConfig(
        recipe=recipe, max_params="1M", space=deep, final_recipe=tiny_recipe(resizing=Resizing(start=8)), finalists=1
    )
    with pytest.raises(InputError, match=r"^final_recipe\.resizing\.start = 8: is too small for the space"):
        require_feasible(make_settings(data, config), data)
    require_feasible(make_settings(data, config.replace(finalists=0)), data)


@pytest.mark.parametrize("sizes", [[16, 64, 32], {"low": 16, "high": 64}])
def test_lookahead_is_refused_where_some_batch_size_has_too_few_steps(digits: DataSet, sizes: Any) -> None:
    space = SearchSpace.from_mapping({**TINY_SPACE, "recipe": {"batch_size": sizes}})
    data = prepare(digits, tiny_recipe(), train_size=130)
    # With batches of 64, ten epochs of 130 images have 30 steps, of which a tenth is 3.
    for every, fits in ((3, True), (4, False)):
        recipe = tiny_recipe(epochs=10, lookahead=Lookahead(every=every))
        recipes = [space.recipe_for({"recipe.batch_size": size}, base=recipe) for size in (16, 32, 64)]
        tried = [is_refused(identify, TINY, data, each, seed=0) for each in recipes]
        assert tried == [False, False, not fits]
        settings = make_settings(data, SearchConfig(recipe=recipe, max_params="1M", space=space))
        assert is_refused(require_feasible, settings, data) != fits


def is_refused(call: Callable[..., object], *arguments: Any, **named: Any) -> bool:
    try:
        call(*arguments, **named)
    except InputError as error:
        assert error.field == "lookahead.every"
        return True
    return False


def test_values_of_sgd_vary_with_sgd_only(digits: DataSet) -> None:
    recipe = tiny_recipe(optimizer=OptimizerChoice(kind="adamw"))
    data = prepare(digits, recipe)
    for values, shown in (
        ({"momentum": [0.5, 0.9]}, "momentum = [0.5, 0.9]"),
        ({"nesterov": [True, False]}, "nesterov = [True, False]"),
        ({"momentum": {"low": 0.5, "high": 0.9}}, "momentum = {'high': 0.9, 'log': False, 'low': 0.5}"),
    ):
        space = SearchSpace.from_mapping({**TINY_SPACE, "recipe": values})
        settings = make_settings(data, SearchConfig(recipe=recipe, max_params="1M", space=space))
        with pytest.raises(InputError) as caught:
            require_feasible(settings, data)
        assert str(caught.value) == f"recipe.{shown}: cannot vary: the recipe's optimiser is adamw, not sgd"
        # Finalists may have another recipe than candidates.
        assert space.recipe_for({f"recipe.{name}": 0.5 for name in values}, base=recipe) == recipe
        require_feasible(settings.model_copy(update={"recipe": tiny_recipe()}), data)
