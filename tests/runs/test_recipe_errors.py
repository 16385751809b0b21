"""Recipes that are refused: values, options that exclude each other, images too small."""

from __future__ import annotations

from typing import Any

import pytest

from budgetnet.common.errors import InputError
from budgetnet.runs.augmentation import Augmentation, Resizing
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import Recipe, require_reliable_validation


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


def test_reflection_padding_must_be_smaller_than_the_image() -> None:
    reflected = Recipe(augmentation=Augmentation(crop_padding=8, padding_mode="reflect"))
    reflected.check_image_size(9, 9)
    Recipe(augmentation=Augmentation(crop_padding=8)).check_image_size(8, 8)
    for height, width in ((8, 9), (9, 8)):
        with pytest.raises(InputError) as caught:
            reflected.check_image_size(height, width)
        assert str(caught.value).startswith("augmentation.crop_padding = 8: must be less than 8")


def test_resizing_rejects_small_or_rectangular_images() -> None:
    recipe = Recipe(resizing=Resizing(start=16))
    recipe.check_image_size(16, 16)
    for size, message in (((32, 28), "resizing = "), ((12, 12), "resizing.start = 16: must be at most the image size")):
        with pytest.raises(InputError) as caught:
            recipe.check_image_size(*size)
        assert str(caught.value).startswith(message)
