"""Recipes: values of named recipes, validation, digests and progressive resizing."""

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
from budgetnet.runs.recipe import Recipe, require_reliable_validation

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


def test_digest_of_a_recipe_of_defaults_is_that_of_an_empty_mapping() -> None:
    assert named_recipe("paper").digest == hashlib.sha256(b"{}").hexdigest()


def test_recipes_with_unreliable_validation_cannot_rank_networks() -> None:
    require_reliable_validation(named_recipe("paper"), field="--recipe")
    for changes, rule in (
        ({"validation_split": "each-epoch"}, "validation images are also trained on"),
        ({"augmented_validation": True}, "validation images are randomly cropped and flipped"),
    ):
        with pytest.raises(InputError, match=rule) as caught:
            require_reliable_validation(Recipe.from_mapping(changes), field="--recipe")
        assert (caught.value.field, caught.value.value) == ("--recipe", "recipe")


@pytest.mark.parametrize(
    "augmentation",
    [{"cutout": 2}, {"policy": {}}, {"color_jitter": {"hue": 0.1}}, {"mixing": {}}, {"alternating_flip": True}],
)
def test_augmented_validation_supports_only_crops_and_flips(augmentation: dict[str, Any]) -> None:
    Recipe(augmented_validation=True, augmentation=Augmentation(padding_mode="reflect"))
    with pytest.raises(InputError, match="augmented_validation = True: supports crops and flips only"):
        Recipe.from_mapping({"augmented_validation": True, "augmentation": augmentation})


def test_digits_recipe_does_not_flip() -> None:
    assert not named_recipe("digits").augmentation.flip


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True, 100_001])
def test_for_epochs_rejects_invalid_numbers(epochs: Any) -> None:
    with pytest.raises(InputError) as caught:
        named_recipe("paper").with_epochs(epochs)
    assert caught.value.field == "epochs"


@pytest.mark.parametrize(
    ("field", "mapping"),
    [
        ("learning_rate", {"learning_rate": 0}),
        ("learning_rate", {"learning_rate": float("nan")}),
        ("learning_rate", {"learning_rate": "fast"}),
        ("learning_rate", {"learning_rate": True}),
        ("learning_rate", {"learning_rate": 1e308}),
        ("weight_decay", {"weight_decay": 1e300}),
        ("nesterov", {"nesterov": 1}),
        ("nesterov", {"nesterov": "yes"}),
        ("augmentation.flip", {"augmentation": {"flip": 0.0}}),
        ("batch_size", {"batch_size": 10**12}),
        ("schedule.first_cycle", {"schedule": {"first_cycle": 10**18}}),
        ("schedule.cycle_factor", {"schedule": {"cycle_factor": 10**9}}),
        ("schedule.minimum", {"schedule": {"minimum": 1e300}}),
        ("early_stopping.patience", {"early_stopping": {"patience": 10**18}}),
        ("lookahead.every", {"lookahead": {"every": 10**18}}),
        ("momentum", {"momentum": 1}),
        ("momentum", {"momentum": -0.1}),
        ("weight_decay", {"weight_decay": float("inf")}),
        ("batch_size", {"batch_size": 1}),
        ("batch_size", {"batch_size": 1.5}),
        ("epochs", {"epochs": 0}),
        ("schedule.kind", {"schedule": {"kind": "step"}}),
        ("schedule.factor", {"schedule": {"kind": "plateau", "factor": 1}}),
        ("schedule.patience", {"schedule": {"kind": "plateau", "patience": -1}}),
        ("schedule.monitor", {"schedule": {"kind": "plateau", "monitor": "training-loss"}}),
        ("schedule.threshold", {"schedule": {"kind": "plateau", "threshold": -1}}),
        ("schedule.warmup_fraction", {"schedule": {"warmup_fraction": 1}}),
        ("schedule.first_cycle", {"epochs": 30, "schedule": {"kind": "one-cycle"}}),
        ("nesterov", {"nesterov": True, "momentum": 0}),
        ("label_smoothing", {"label_smoothing": 1}),
        ("test_time_shifts", {"test_time_shifts": True}),
        ("example_filter.keep", {"example_filter": {"keep": 0}}),
        ("example_filter.keep", {"example_filter": {"keep": 1}}),
        ("example_filter.backward_every", {"example_filter": {"backward_every": 0}}),
        ("resizing.start", {"resizing": {"start": 4}}),
        ("resizing.start", {"resizing": {"start": 18}}),
        ("resizing.until", {"resizing": {"until": 0}}),
        ("resizing.until", {"resizing": {"until": 1.1}}),
        ("weight_average", {"weight_average": 1}),
        ("precision", {"precision": "float16"}),
        ("augmentation.alternating_flip", {"augmentation": {"flip": False, "alternating_flip": True}}),
        ("augmentation.cutout", {"augmentation": {"cutout": -1}}),
        ("augmentation.policy.kind", {"augmentation": {"policy": {"kind": "auto-augment"}}}),
        ("augmentation.policy.operations", {"augmentation": {"policy": {"operations": 0}}}),
        ("augmentation.policy.magnitude", {"augmentation": {"policy": {"magnitude": 31}}}),
        ("augmentation.mixing.kind", {"augmentation": {"mixing": {"kind": "blend"}}}),
        ("augmentation.mixing.alpha", {"augmentation": {"mixing": {"alpha": 0}}}),
        ("schedule.first_cycle", {"schedule": {"first_cycle": 0}}),
        ("schedule.cycle_factor", {"schedule": {"cycle_factor": 1.5}}),
        ("schedule.minimum", {"schedule": {"minimum": -1}}),
        ("early_stopping.patience", {"early_stopping": {"patience": 0}}),
        ("augmentation.crop_padding", {"augmentation": {"crop_padding": -1}}),
        ("augmentation.flip", {"augmentation": {"flip": "perhaps"}}),
        ("augmentation.padding_mode", {"augmentation": {"padding_mode": "edge"}}),
        ("validation_fraction", {"validation_fraction": 0}),
        ("validation_fraction", {"validation_fraction": 1}),
        ("split_seed", {"split_seed": 2**32}),
        ("optimizer", {"optimizer": "adam"}),
        ("optimizer.kind", {"optimizer": {"kind": "lion"}}),
        ("optimizer.betas", {"optimizer": {"kind": "adam", "betas": [0.9]}}),
        ("optimizer.betas[1]", {"optimizer": {"kind": "adam", "betas": [0.9, 1]}}),
        ("optimizer.epsilon", {"optimizer": {"kind": "adam", "epsilon": 0}}),
        ("gradient_clipping", {"gradient_clipping": 0}),
        ("gradient_clipping", {"gradient_clipping": float("inf")}),
        ("gradient_clipping", {"gradient_clipping": True}),
        ("stochastic_depth", {"stochastic_depth": 1}),
        ("stochastic_depth", {"stochastic_depth": -0.1}),
        ("augmentation.color_jitter.brightness", {"augmentation": {"color_jitter": {}}}),
        ("augmentation.color_jitter", {"augmentation": {"color_jitter": 0.4}}),
        ("augmentation.color_jitter.brightness", {"augmentation": {"color_jitter": {"brightness": -0.1}}}),
        ("augmentation.color_jitter.hue", {"augmentation": {"color_jitter": {"hue": 0.6}}}),
        ("augmentation.color_jitter.gamma", {"augmentation": {"color_jitter": {"gamma": 1}}}),
        ("schema_version", {"schema_version": 2}),
    ],
)
def test_invalid_values_name_the_field(field: str, mapping: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.from_mapping(mapping)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"optimizer": {"kind": "adam"}, "momentum": 0.8},
            "momentum = 0.8: must be omitted for adam, which has optimizer.betas",
        ),
        ({"optimizer": {"kind": "adamw"}, "nesterov": True}, "nesterov = True: needs the optimiser sgd, not adamw"),
        (
            {"optimizer": {"kind": "adamw"}, "per_1024_examples": True},
            "per_1024_examples = True: needs the optimiser sgd, not adamw, whose step does not grow with the gradient",
        ),
        (
            {"optimizer": {"betas": [0.8, 0.9]}},
            "optimizer.betas = [0.8, 0.9]: must be omitted for the optimiser sgd",
        ),
        (
            {"augmentation": {"color_jitter": {"hue": 0}}},
            "augmentation.color_jitter.brightness = 0.0: this or another strength must be above 0; null for no colour "
            "jitter",
        ),
        ({"optimizer": {"epsilon": 0.1}}, "optimizer.epsilon = 0.1: must be omitted for the optimiser sgd"),
    ],
)
def test_options_that_do_not_go_together_are_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.from_mapping(mapping)
    assert str(caught.value) == message


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
    content = '{"epochs":3,"learning_rate":0.5}'
    assert Recipe(epochs=3, learning_rate=0.5).digest == hashlib.sha256(content.encode()).hexdigest()


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


def test_reflection_padding_must_be_smaller_than_the_image() -> None:
    reflected = Recipe(augmentation=Augmentation(crop_padding=8, padding_mode="reflect"))
    reflected.check_image_size(9, 9)
    Recipe(augmentation=Augmentation(crop_padding=8)).check_image_size(8, 8)
    for height, width in ((8, 9), (9, 8)):
        with pytest.raises(InputError) as caught:
            reflected.check_image_size(height, width)
        assert str(caught.value).startswith("augmentation.crop_padding = 8: must be less than 8")


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


def test_resizing_rejects_small_or_rectangular_images() -> None:
    recipe = Recipe(resizing=Resizing(start=16))
    recipe.check_image_size(16, 16)
    for size, message in (((32, 28), "resizing = "), ((12, 12), "resizing.start = 16: must be at most the image size")):
        with pytest.raises(InputError) as caught:
            recipe.check_image_size(*size)
        assert str(caught.value).startswith(message)


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
