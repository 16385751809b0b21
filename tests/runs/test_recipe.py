"""Recipes: values of named recipes, validation, digests, learning-rate schedules and progressive resizing."""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import many_examples

from budgetnet.common.errors import InputError
from budgetnet.runs.augmentation import Augmentation, ExampleFilter, Policy, Resizing
from budgetnet.runs.named_recipes import NAMED, named_recipe
from budgetnet.runs.recipe import Recipe, require_reliable_validation
from budgetnet.runs.schedule import Schedule

FAST: list[dict[str, Any]] = [
    {"augmentation": {"padding_mode": "reflect"}},
    {"test_time_shifts": True},
    {"resizing": {"start": 8}},
    {"example_filter": {"keep": 0.25}},
]
"""Options of fast training, one at a time."""


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


@pytest.mark.parametrize("augmentation", [{"cutout": 2}, {"policy": {}}, {"mixing": {}}, {"alternating_flip": True}])
def test_augmented_validation_supports_only_crops_and_flips(augmentation: dict[str, Any]) -> None:
    Recipe(augmented_validation=True, augmentation=Augmentation(padding_mode="reflect"))
    with pytest.raises(InputError, match="augmented_validation = True: supports crops and flips only"):
        Recipe.from_mapping({"augmented_validation": True, "augmentation": augmentation})


def test_digits_recipe_does_not_flip() -> None:
    assert not named_recipe("digits").augmentation.flip


def simulated_cycle_ends(epochs: int, first: int, factor: int) -> list[int]:
    """Simulate torch's CosineAnnealingWarmRestarts epoch by epoch and return the last epoch of each cycle."""
    ends, position, length = [], 0, first
    for epoch in range(1, epochs + 1):
        position += 1
        if position == length:
            ends.append(epoch)
            position, length = 0, length * factor
    return ends


@many_examples
@given(st.integers(1, 400), st.integers(1, 120), st.integers(1, 4))
def test_cycle_ends_equal_a_simulation(epochs: int, first: int, factor: int) -> None:
    schedule = Schedule(first_cycle=first, cycle_factor=factor)
    assert schedule.cycle_ends(epochs) == simulated_cycle_ends(epochs, first, factor)


def test_constant_schedule_has_no_cycles() -> None:
    assert Schedule(kind="constant", first_cycle=1).cycle_ends(10) == []


@pytest.mark.parametrize(
    ("name", "epochs", "ends"),
    [
        ("paper", 1, [1]),
        ("paper", 100, [100]),
        # 120 is nearer to one cycle of 100 than to two, 160 nearer to two.
        ("paper", 120, [120]),
        ("paper", 160, [80, 160]),
        ("paper", 500, [100, 200, 300, 400, 500]),
        # The cycle ends 2, 6, 14, 30 scaled by 2/3.
        ("search", 20, [1, 4, 9, 20]),
        ("search", 30, [2, 6, 14, 30]),
        ("search", 60, [4, 12, 28, 60]),
        # Too few epochs for four cycles: of 2, 6, ... the first is nearest to 3 as a ratio.
        ("search", 3, [3]),
        ("digits", 4, [1, 2, 4]),
        ("fast", 17, [17]),
        ("modern", 17, [17]),
    ],
)
def test_training_of_any_length_ends_at_the_minimum(name: str, epochs: int, ends: list[int]) -> None:
    own = named_recipe(name)
    recipe = own.with_epochs(epochs)
    assert (recipe.epochs, recipe.schedule.cycle_ends(epochs)) == (epochs, ends)
    changed = {"epochs", "schedule"}
    assert recipe.model_dump(exclude=changed) == own.model_dump(exclude=changed)
    assert Recipe.from_mapping(recipe.to_mapping()) == recipe


def nearest_ends(epochs: int, first: int, factor: int) -> list[int]:
    """Cycle ends of any number of cycles whose last has the least distance to the training's end, by brute force."""
    candidates = [simulated_cycle_ends(end, first, factor) for end in range(1, factor * epochs + first + 1)]
    complete = [ends for end, ends in enumerate(candidates, 1) if ends and ends[-1] == end]
    return min(reversed(complete), key=lambda ends: round(abs(math.log(epochs / ends[-1])), 12))


@many_examples
@given(st.integers(1, 150), st.integers(1, 40), st.integers(1, 4), st.integers(1, 200))
def test_stretched_schedule_keeps_its_cycles_or_has_the_nearest_number(
    epochs: int, first: int, factor: int, own: int
) -> None:
    original = Schedule(first_cycle=first, cycle_factor=factor, minimum=0.001)
    schedule = original.stretched(epochs, own=own)
    before, ends = simulated_cycle_ends(own, first, factor), schedule.cycle_ends(epochs)
    if not before or before[-1] != own or len(before) > epochs:
        before = nearest_ends(epochs, first, factor)
    assert (len(ends), ends[-1]) == (len(before), epochs)
    # Rounding moves an end by up to half an epoch; where short cycles need an epoch each, the later ends move as well.
    assert all(
        abs(end - old * epochs / before[-1]) <= 0.5 + len(ends) / 2 for end, old in zip(ends, before, strict=True)
    )
    for end in ends:
        assert schedule.learning_rate(end - 0.001, initial=1.0) < 0.0011
    for end in (0, *ends[:-1]):
        assert schedule.learning_rate(end, initial=1.0) == pytest.approx(1.0)
    if before[-1] == epochs:
        assert schedule == original
    assert (schedule.cycles is None) or simulated_cycle_ends(epochs, ends[0], factor) != ends


def test_own_number_of_epochs_changes_nothing() -> None:
    recipe = Recipe(epochs=150, schedule=Schedule(first_cycle=100))
    assert recipe.with_epochs(150) == recipe


@pytest.mark.parametrize("epochs", [0, -1, 100_001])
def test_with_epochs_rejects_invalid_epochs(epochs: int) -> None:
    for name in ("paper", "search", "modern"):
        with pytest.raises(InputError, match=r"^epochs = "):
            named_recipe(name).with_epochs(epochs)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"epochs": 9, "schedule": {"cycles": [3, 5]}}, "schedule.cycles = [3, 5]: must add up to epochs (9)"),
        ({"epochs": 8, "schedule": {"cycles": []}}, "schedule.cycles = []: must have at least 1 entries"),
        (
            {"epochs": 8, "schedule": {"kind": "linear", "first_cycle": 8, "cycles": [3, 5]}},
            "schedule.cycles = [3, 5]: must be omitted in a schedule of kind linear",
        ),
    ],
)
def test_cycles_must_fit_the_recipe(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.from_mapping(recipe)
    assert str(caught.value) == message


def test_for_epochs_keeps_a_constant_schedule() -> None:
    recipe = Recipe(schedule=Schedule(kind="constant"))
    assert recipe.with_epochs(3).schedule == recipe.schedule


def test_a_single_cycle_spans_the_whole_training() -> None:
    recipe = Recipe(epochs=20, schedule=Schedule(kind="one-cycle", first_cycle=20))
    for epochs in (1, 5, 20, 77):
        changed = recipe.with_epochs(epochs)
        assert (changed.epochs, changed.schedule.first_cycle) == (epochs, epochs)
        assert changed.schedule.cycle_ends(epochs) == [epochs]
        assert changed.schedule.cycle_ends(epochs - 1) == []
        assert changed.schedule.cycle_ends(3 * epochs) == [epochs]


@pytest.mark.parametrize(("epochs", "steps", "warmup"), [(1, 40, 0.3), (5, 8, 0.25), (10, 1, 0.1)])
def test_one_cycle_schedule_equals_torch(epochs: int, steps: int, warmup: float) -> None:
    total = epochs * steps
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    # torch reaches the minimum at the last step, this schedule after it; so torch gets one step more, and the fraction
    # of warmup is corrected by one step.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.4,
        total_steps=total + 1,
        pct_start=(warmup * total + 1) / (total + 1),
        cycle_momentum=False,
        final_div_factor=16,
    )
    schedule = Schedule(kind="one-cycle", first_cycle=epochs, warmup_fraction=warmup, minimum=0.001)
    for step in range(total):
        rate = schedule.learning_rate(step / steps, initial=0.4)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()
    assert schedule.learning_rate(epochs, initial=0.4) == 0.001
    assert schedule.learning_rate(2 * epochs, initial=0.4) == 0.001


@pytest.mark.parametrize(("epochs", "steps", "warmup"), [(1, 40, 0.23), (9, 8, 0.1), (10, 1, 0.0)])
def test_linear_schedule_is_piecewise_linear(epochs: int, steps: int, warmup: float) -> None:
    schedule = Schedule(kind="linear", first_cycle=epochs, warmup_fraction=warmup, warmup_start=0.25, minimum=0.03)
    times = np.arange(epochs * steps + 1) / steps
    corners = [0.0, warmup * epochs, epochs] if warmup else [0.0, epochs]
    expected = np.interp(times, corners, [0.25 * 0.4, 0.4, 0.03] if warmup else [0.4, 0.03])
    assert [schedule.learning_rate(time, initial=0.4) for time in times] == pytest.approx(list(expected))
    assert schedule.learning_rate(2 * epochs, initial=0.4) == pytest.approx(0.03)
    assert schedule.cycle_ends(3 * epochs) == [epochs]
    with pytest.raises(InputError, match=r"must equal epochs .* in a schedule of a single cycle"):
        Recipe(epochs=epochs + 1, schedule=schedule)
    assert Recipe(epochs=epochs, schedule=schedule).with_epochs(77).schedule.first_cycle == 77


def test_one_cycle_without_warmup_equals_the_first_cosine_cycle() -> None:
    single = Schedule(kind="one-cycle", first_cycle=9, warmup_fraction=0.0)
    restarting = Schedule(first_cycle=9)
    for step in range(90):
        assert single.learning_rate(step / 10, initial=0.1) == restarting.learning_rate(step / 10, initial=0.1)


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
        ("schedule.kind", {"schedule": {"kind": "steps"}}),
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
        ("schema_version", {"schema_version": 2}),
    ],
)
def test_invalid_values_name_the_field(field: str, mapping: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.from_mapping(mapping)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


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
    off += [parts.alternating_flip, parts.policy, parts.cutout, parts.mixing]
    assert not any(off)
    assert (parts.padding_mode, recipe.test_time_shifts) == ("zeros", False)
    assert (recipe.resizing, recipe.example_filter) == (None, None)
    assert len(off) == 8


@pytest.mark.parametrize(
    ("name", "hint"),
    [("papers", "did you mean paper?"), ("x", "available: paper, as-run, modern, fast, search, digits")],
)
def test_unknown_recipe_suggests_known_names(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        named_recipe(name)
    assert caught.value.field == "recipe"
    assert hint in caught.value.rule


def test_every_cycle_starts_at_the_initial_learning_rate() -> None:
    schedule = Schedule(first_cycle=1, cycle_factor=3, minimum=0.0)
    for end in schedule.cycle_ends(10_000):
        assert schedule.learning_rate(end, initial=0.1) == 0.1
        assert schedule.learning_rate(end - 1e-6, initial=0.1) < 1e-3
