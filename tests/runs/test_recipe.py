"""Recipes: values of named recipes, digests, descriptions and progressive resizing."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import many_examples

from budgetnet.common.errors import InputError
from budgetnet.runs.augmentation import Augmentation, ExampleFilter, Policy, Resizing
from budgetnet.runs.named_recipes import NAMED, describe_recipe, named_recipe
from budgetnet.runs.recipe import Recipe

FAST: list[dict[str, Any]] = [
    {"augmentation": {"padding_mode": "reflect"}},
    {"test_time_shifts": True},
    {"resizing": {"start": 8}},
    {"example_filter": {"keep": 0.25}},
    {"class_weights": "balanced"},
    {"optimizer": {"kind": "adamw"}},
    {"gradient_clipping": 1.0},
    {"stochastic_depth": 0.2},
    {"augmentation": {"color_jitter": {"brightness": 0.4}}},
    {"schedule": {"kind": "steps", "milestones": [75, 112]}},
    {"schedule": {"kind": "plateau", "patience": 5}},
]
"""Options that were added later, one at a time."""


def test_paper_recipe_has_the_values_of_the_paper() -> None:
    recipe = named_recipe("paper")
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.01, 0.9, 5e-4)
    assert recipe.batch_size == 128
    assert recipe.epochs == 150
    schedule = recipe.schedule
    assert (schedule.kind, schedule.first_cycle, schedule.cycle_factor, schedule.minimum) == (
        "cosine-restarts",
        100,
        1,
        0,
    )
    assert recipe.early_stopping is not None
    assert (recipe.early_stopping.patience, recipe.early_stopping.min_delta) == (10, 1e-4)
    assert (recipe.augmentation.crop_padding, recipe.augmentation.flip) == (4, True)
    assert recipe.validation_fraction == 0.2


def test_as_run_recipe_differs_from_paper_only_in_what_the_notebook_did() -> None:
    recipe, paper = named_recipe("as-run"), named_recipe("paper")
    assert (recipe.schedule.kind, recipe.validation_split, recipe.augmented_validation) == (
        "constant",
        "each-epoch",
        True,
    )
    assert recipe.schedule.learning_rate(82.5, initial=recipe.learning_rate) == 0.01
    assert recipe.early_stopping is not None
    assert recipe.early_stopping.to_mapping() == {"patience": 10, "min_delta": 1e-4, "monitor": "training-loss"}
    same = recipe.model_dump(exclude={"name", "schedule", "validation_split", "augmented_validation", "early_stopping"})
    assert same.items() <= paper.model_dump().items()
    assert (recipe.leaks, paper.leaks) == (True, False)


def test_digits_recipe_does_not_flip() -> None:
    assert not named_recipe("digits").augmentation.flip


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_save_and_load_round_trip(tmp_path: Path, name: str, suffix: str) -> None:
    recipe = named_recipe(name)
    recipe.save(tmp_path / f"recipe{suffix}")
    loaded = Recipe.load(tmp_path / f"recipe{suffix}")
    assert loaded == recipe
    assert loaded.digest == recipe.digest


def test_yaml_exponents_are_read_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("learning_rate: 1e-2\nweight_decay: 5e-4\nearly_stopping: null\n")
    recipe = Recipe.load(path)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.early_stopping) == (0.01, 5e-4, None)


def test_digest_depends_on_all_fields_but_the_name() -> None:
    assert Recipe(name="a").digest == Recipe(name="b").digest
    assert Recipe(split_seed=1).digest != Recipe().digest
    assert Recipe(early_stopping=None).digest != Recipe().digest
    assert Recipe(augmentation=Augmentation(policy=Policy())).digest != Recipe().digest


def test_digest_hashes_only_fields_that_differ_from_defaults() -> None:
    """The content is written as the first version of the format hashed it."""
    for content in ("{}", '{"epochs":3,"learning_rate":0.5}'):
        assert Recipe(**json.loads(content)).digest == hashlib.sha256(content.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("paper", "44136fa355b3678a"),
        ("as-run", "9a4a146241d73ad2"),
        ("modern", "9d5286f666956dbf"),
        ("search", "75cf73eaa36f2fde"),
        ("digits", "4faf92288e5fe777"),
    ],
)
def test_digests_of_named_recipes_are_unchanged(name: str, digest: str) -> None:
    assert named_recipe(name).digest.startswith(digest)


def test_options_of_fast_training_change_the_digest_only_where_set() -> None:
    """The expected digests hash the content as the first version of the format did."""
    content = '{"augmentation":{"crop_padding":2},"learning_rate":0.5,"test_time_flip":true}'
    earlier: dict[str, Any] = json.loads(content)
    assert Recipe.from_mapping(earlier).digest == hashlib.sha256(content.encode()).hexdigest()
    for changes in FAST:
        mapping = {**earlier, **changes, "augmentation": {"crop_padding": 2, **changes.get("augmentation", {})}}
        expected = json.dumps(mapping, sort_keys=True, separators=(",", ":"))
        assert Recipe.from_mapping(mapping).digest == hashlib.sha256(expected.encode()).hexdigest()


def test_views_follow_from_test_time_options() -> None:
    assert (Recipe().views, Recipe(test_time_flip=True).views) == ("none", "flip")
    shifted = Recipe(test_time_flip=True, test_time_shifts=True)
    assert shifted.views == "flip-and-shifts"
    shifted.check_image_size(2, 2)
    with pytest.raises(InputError, match=r"^test_time_shifts = True: needs images of at least 2x2 pixels, not 1x9$"):
        shifted.check_image_size(1, 9)


@pytest.mark.parametrize(
    ("start", "until", "epochs", "full", "sides"),
    [
        # 16, 19.2, 22.4, 25.6 and 28.8 in the first half.
        (16, 0.5, 10, 32, [16, 20, 24, 24, 28, 32, 32, 32, 32, 32]),
        (8, 1, 4, 32, [8, 16, 20, 28]),  # 8, 14, 20, 26; ties round up
        (16, 0.7, 10, 32, [16, 20, 20, 24, 24, 28, 28, 32, 32, 32]),
        (24, 0.5, 2, 28, [24, 28]),
        (16, 0.3, 10, 30, [16, 20, 24, 30, 30, 30, 30, 30, 30, 30]),  # 16, 20.67, 25.33
        (16, 0.5, 8, 19, [16, 16, 16, 19, 19, 19, 19, 19]),  # 16, 16.75, 17.5, 18.25, which is nearest to 20
        (16, 1, 1, 32, [16]),
        (32, 0.5, 3, 32, [32, 32, 32]),
    ],
)
def test_image_size_grows_linearly_in_steps_of_four(
    start: int, until: float, epochs: int, full: int, sides: list[int]
) -> None:
    resizing = Resizing(start=start, until=until)
    assert [resizing.side(epoch, epochs=epochs, full=full) for epoch in range(1, epochs + 1)] == sides
    recipe = Recipe(epochs=epochs, resizing=resizing)
    assert [recipe.side(epoch, full=full) for epoch in range(1, epochs + 1)] == sides
    assert Recipe(epochs=epochs).side(1, full=full) == full


@many_examples
@given(st.integers(2, 16), st.integers(1, 100), st.integers(1, 200), st.integers(0, 40))
def test_image_sizes_equal_exact_rational_arithmetic(quarter: int, percent: int, epochs: int, more: int) -> None:
    start, full = 4 * quarter, 4 * quarter + more
    resizing = Resizing(start=start, until=percent / 100)
    for epoch in range(1, epochs + 1):
        progress = min(Fraction(1), Fraction(100 * (epoch - 1), percent * epochs))
        exact = start + (full - start) * progress
        nearest = [side for side in range(0, full + 8, 4) if abs(side - exact) <= 2]
        expected = full if progress == 1 else min(max(nearest), full)
        found = resizing.side(epoch, epochs=epochs, full=full)
        # Rounding errors may decide a tie.
        assert found == expected or (found in nearest and abs(exact - found) == 2)


@pytest.mark.parametrize(
    ("keep", "images", "selected"),
    [(0.5, 16, 8), (0.5, 15, 8), (0.5, 2, 2), (0.1, 10, 2), (0.1, 1, 1), (0.3, 11, 3), (0.99, 100, 99), (0.9, 2, 2)],
)
def test_number_of_images_selected_from_a_batch(keep: float, images: int, selected: int) -> None:
    assert ExampleFilter(keep=keep).kept(images) == selected


def test_options_beyond_the_paper_are_off_in_the_paper_recipe() -> None:
    recipe = named_recipe("paper")
    parts = recipe.augmentation
    off: list[object] = [recipe.nesterov, recipe.label_smoothing, recipe.weight_average, recipe.test_time_flip]
    off += [parts.alternating_flip, parts.policy, parts.cutout, parts.mixing, parts.color_jitter]
    off += [recipe.gradient_clipping, recipe.stochastic_depth]
    assert not any(off)
    assert (parts.padding_mode, recipe.test_time_shifts) == ("zeros", False)
    assert (recipe.resizing, recipe.example_filter) == (None, None)
    assert len(off) == 11


@pytest.mark.parametrize(
    ("name", "hint"),
    [("papers", "did you mean paper?"), ("x", "available: paper, as-run, modern, fast, search, digits")],
)
def test_unknown_recipe_suggests_known_names(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        named_recipe(name)
    assert caught.value.field == "recipe"
    assert hint in caught.value.rule


@pytest.mark.parametrize(
    ("base", "changes", "text"),
    [
        ("paper", {}, "paper"),
        ("digits", {"name": ""}, "digits"),
        ("paper", {"name": "", "learning_rate": 0.03}, "paper, with learning_rate 0.03"),
        ("paper", {"learning_rate": 0.03}, "paper, with learning_rate 0.03"),
        ("search", {"name": "", "nesterov": False, "momentum": 0.5}, "search, with momentum 0.5, nesterov false"),
        ("paper", {"name": "", "early_stopping": None}, "paper, with early_stopping none"),
        ("paper", {"name": "", "augmentation": {"cutout": 4}}, "paper, with augmentation.cutout 4"),
        ("paper", {"name": "", "lookahead": {}}, "paper, with lookahead"),
        (
            "paper",
            {"name": "", "learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.1, "batch_size": 9, "nesterov": True},
            "paper, with learning_rate 0.1, momentum 0.5, weight_decay 0.1 and 2 more",
        ),
        ("paper", {"name": "mine", "learning_rate": 0.03}, "mine"),
    ],
)
def test_a_recipe_is_described_by_what_differs_from_a_named_one(base: str, changes: dict[str, Any], text: str) -> None:
    recipe = Recipe(**{**named_recipe(base).to_mapping(), **changes})
    assert describe_recipe(recipe) == text


@pytest.mark.parametrize("name", list(NAMED))
def test_another_number_of_epochs_alone_is_no_difference(name: str) -> None:
    known = named_recipe(name)
    assert describe_recipe(known.with_epochs(known.epochs * 2).model_copy(update={"name": ""})) == name


def test_a_drawn_value_is_described_by_four_digits() -> None:
    drawn = named_recipe("paper").model_copy(update={"name": "", "learning_rate": 0.10506639612836471})
    assert describe_recipe(drawn) == "paper, with learning_rate 0.1051"
