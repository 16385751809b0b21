"""Recipe values that a space varies: drawn, laid over a study's recipe, and refused where no recipe may have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from budgetnet.common.errors import InputError
from budgetnet.runs.augmentation import Augmentation
from budgetnet.runs.named_recipes import NAMED
from budgetnet.runs.recipe import Recipe
from budgetnet.study.space import SearchSpace

VARIED: dict[str, Any] = {
    "learning_rate": {"low": "1e-2", "high": 0.2, "log": True},
    "weight_decay": {"low": 0, "high": 1e-3},
    "momentum": [0, 0.9],
    "batch_size": [64, 128.0, 256],
    "label_smoothing": [0.0, 0.1],
    "nesterov": [True, False],
    "weight_average": [None, 0.98],
    "gradient_clipping": [None, 2],
    "stochastic_depth": {"low": 0, "high": 0.2},
    "test_time_flip": [False, True],
    "augmentation.crop_padding": {"low": 0, "high": 4},
    "augmentation.flip": [True, False],
    "augmentation.alternating_flip": [True, False],
    "augmentation.cutout": {"low": 1, "high": 16, "log": True},
}


def test_values_are_drawn_as_the_recipe_has_them() -> None:
    space = SearchSpace(recipe=VARIED)
    expected = {
        "recipe.learning_rate": FloatDistribution(0.01, 0.2, log=True),
        "recipe.weight_decay": FloatDistribution(0.0, 1e-3),
        "recipe.momentum": CategoricalDistribution((0.0, 0.9)),
        "recipe.batch_size": CategoricalDistribution((64, 128, 256)),
        "recipe.label_smoothing": CategoricalDistribution((0.0, 0.1)),
        "recipe.nesterov": CategoricalDistribution((True, False)),
        "recipe.weight_average": CategoricalDistribution((None, 0.98)),
        "recipe.gradient_clipping": CategoricalDistribution((None, 2.0)),
        "recipe.stochastic_depth": FloatDistribution(0.0, 0.2),
        "recipe.test_time_flip": CategoricalDistribution((False, True)),
        "recipe.augmentation.crop_padding": IntDistribution(0, 4),
        "recipe.augmentation.flip": CategoricalDistribution((True, False)),
        "recipe.augmentation.alternating_flip": CategoricalDistribution((True, False)),
        "recipe.augmentation.cutout": IntDistribution(1, 16, log=True),
    }
    drawn = {name: where for name, where in space.distributions.items() if name.startswith("recipe.")}
    assert drawn == expected
    assert [type(choice) for choice in expected["recipe.batch_size"].choices] == [int] * 3  # type: ignore[attr-defined]
    assert not expected.keys() & space.network.keys()


def test_a_space_with_recipe_values_is_written_and_read() -> None:
    space = SearchSpace(recipe=VARIED)
    assert SearchSpace.from_mapping(space.to_mapping()) == space
    assert space.to_mapping()["recipe"]["augmentation.cutout"] == {"low": 1, "high": 16, "log": True}


def test_a_drawn_recipe_is_the_one_written_by_hand() -> None:
    space = SearchSpace(recipe={name: VARIED[name] for name in ("learning_rate", "batch_size", "augmentation.cutout")})
    params = {"recipe.learning_rate": 0.05, "recipe.batch_size": 64, "recipe.augmentation.cutout": 8, "stages": 3}
    base = NAMED["modern"]
    drawn = space.recipe_for(params, base=base)
    by_hand = Recipe.from_mapping(
        {**base.model_dump(), "batch_size": 64, "augmentation": {"cutout": 8}, "name": "by-hand"}
    )
    assert drawn.digest == by_hand.digest
    assert (drawn.name, drawn.schedule, drawn.epochs) == ("", base.schedule, base.epochs)


def test_a_draw_of_what_the_recipe_has_anyway_is_the_same_recipe() -> None:
    space = SearchSpace(recipe={"momentum": [0.0, 0.9]})
    assert space.recipe_for({"recipe.momentum": 0.9}, base=NAMED["paper"]).digest == NAMED["paper"].digest


def test_without_recipe_values_the_recipe_itself_answers() -> None:
    assert SearchSpace().recipe_for({}, base=NAMED["paper"]) is NAMED["paper"]


def test_what_needs_another_option_is_off_without_it() -> None:
    space = SearchSpace(recipe={"momentum": [0.0, 0.9], "augmentation.flip": [True, False]})
    base = Recipe(
        nesterov=True,
        augmentation=Augmentation(alternating_flip=True),
        test_time_flip=True,
        test_time_shifts=True,
    )
    for momentum, flip in ((0.0, False), (0.9, False), (0.0, True), (0.9, True)):
        recipe = space.recipe_for({"recipe.momentum": momentum, "recipe.augmentation.flip": flip}, base=base)
        assert (recipe.momentum, recipe.nesterov) == (momentum, momentum > 0)
        assert (recipe.augmentation.flip, recipe.augmentation.alternating_flip) == (flip, flip)
        assert recipe.views == "flip-and-shifts"
    assert (
        SearchSpace(recipe={"test_time_flip": [False]}).recipe_for({"recipe.test_time_flip": False}, base=base).views
        == "none"
    )


SEARCHED = {name: recipe for name, recipe in NAMED.items() if not recipe.leaks}
"""Recipes that a search may start from."""


@pytest.mark.parametrize("base", SEARCHED.values(), ids=SEARCHED)
def test_every_draw_is_a_recipe(base: Recipe) -> None:
    space = SearchSpace(recipe=VARIED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    columns = space.sample(count=50, generator=np.random.default_rng(0))
    draws = [space.params_at(columns, row) for row in range(50)]
    draws += [study.ask(space.proposed("fit")).params for _ in range(50)]
    recipes = [space.recipe_for(params, base=base) for params in draws]
    assert len({recipe.digest for recipe in recipes}) == 100
    assert {recipe.nesterov for recipe in recipes} == {True, False}
    assert {recipe.augmentation.alternating_flip for recipe in recipes} == {True, False}


def test_many_draws_hold_to_their_ranges() -> None:
    space = SearchSpace(recipe=VARIED)
    columns = space.sample(count=5_000, generator=np.random.default_rng(0))
    for name, where in space.distributions.items():
        values = [value.item() if isinstance(value, np.generic) else value for value in columns[name]]
        assert all(where._contains(where.to_internal_repr(value)) for value in values)
    # Evenly in the logarithm, half of all lie below the root of the product of the ends.
    assert 0.45 < (columns["recipe.learning_rate"] < (0.01 * 0.2) ** 0.5).mean() < 0.55
    assert 0.45 < (columns["recipe.weight_decay"] < 5e-4).mean() < 0.55
    assert set(columns["recipe.augmentation.cutout"].tolist()) == set(range(1, 17))
    # From half below the smallest to half above the largest, as Optuna has it: 31.4 % are the smallest.
    assert 0.29 < (columns["recipe.augmentation.cutout"] == 1).mean() < 0.34
    assert set(columns["recipe.augmentation.crop_padding"].tolist()) == set(range(5))


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        ([1], "recipe = [1]: must be a mapping of fields"),
        ({"learning_rate": [-1]}, "recipe.learning_rate = -1: must be greater than 0"),
        ({"learning_rate": []}, "recipe.learning_rate = []: must have at least 1 entries"),
        ({"learning_rate": 0.1}, "recipe.learning_rate = 0.1: must be a list of choices, or a mapping"),
        ({"learning_rate": {"low": 0, "high": 1}}, "recipe.learning_rate = 0: must be greater than 0"),
        ({"learning_rate": {"low": 2, "high": 1}}, "recipe.learning_rate = [2.0, 1.0]: must name the smaller"),
        ({"learning_rate": {"low": 1}}, "recipe.learning_rate.high = None: missing field"),
        ({"learning_rate": {"low": 1, "high": 2, "lgo": True}}, "recipe.learning_rate.lgo = True: unknown field"),
        ({"learning_rate": {"low": True, "high": 2}}, "recipe.learning_rate.low = True: must be a number"),
        ({"weight_decay": {"low": 0, "high": 1, "log": True}}, "recipe.weight_decay.low = 0.0: must be above 0"),
        ({"batch_size": [64, 64.0]}, "recipe.batch_size = [64, 64.0]: must not name a choice twice"),
        ({"batch_size": [1]}, "recipe.batch_size = 1: must be at least 2"),
        ({"batch_size": {"low": 2.5, "high": 8}}, "recipe.batch_size = 2.5: must be a whole number"),
        ({"nesterov": {"low": 0, "high": 1}}, "recipe.nesterov = {'high': 1, 'low': 0}: is on or off"),
        ({"augmentation.cutout": [-1]}, "recipe.augmentation.cutout = -1: must be at least 0"),
        ({"epochs": [3, 4]}, "recipe.epochs = [3, 4]: must be the same for all candidates"),
        ({"schedule.kind": ["constant"]}, "recipe.schedule.kind = ['constant']: must be the same"),
        ({"precision": ["auto"]}, "recipe.precision = ['auto']: must be the same"),
        ({"validation_fraction": [0.1]}, "recipe.validation_fraction = [0.1]: must be the same"),
        ({"augmentation.policy": [None]}, "recipe.augmentation.policy = [None]: no field that may vary"),
        ({"lerning_rate": [1]}, "recipe.lerning_rate = [1]: no field that may vary; did you mean learning_rate?"),
        ({3: [1]}, "recipe.3 = [1]: no field that may vary"),
    ],
)
def test_what_no_recipe_may_have_is_told_in_one_line(recipe: Any, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        SearchSpace.from_mapping({"recipe": recipe})
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)
