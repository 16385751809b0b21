"""Learning-rate schedules: cycles, their values against torch, and what another number of epochs makes of them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import many_examples

from budgetnet.common.errors import InputError
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import Recipe, unfinished_cycle
from budgetnet.runs.schedule import Schedule


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


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"epochs": 9, "schedule": {"cycles": [3, 5]}}, "schedule.cycles = [3, 5]: must add up to epochs (9)"),
        ({"epochs": 8, "schedule": {"cycles": []}}, "schedule.cycles = []: must have at least 1 entries"),
        (
            {"epochs": 8, "schedule": {"kind": "steps"}},
            "schedule.milestones = None: must be given in a schedule of kind steps",
        ),
        (
            {"epochs": 8, "schedule": {"kind": "steps", "milestones": [5, 3]}},
            "schedule.milestones = [5, 3]: must be in ascending order, each once",
        ),
        (
            {"epochs": 8, "schedule": {"kind": "steps", "milestones": [3, 3]}},
            "schedule.milestones = [3, 3]: must be in ascending order, each once",
        ),
        (
            {"epochs": 8, "schedule": {"kind": "steps", "milestones": [0]}},
            "schedule.milestones[0] = 0: must be at least 1",
        ),
        (
            {"epochs": 8, "schedule": {"kind": "steps", "milestones": [3, 8]}},
            "schedule.milestones = [3, 8]: must be below epochs (8)",
        ),
        (
            {"epochs": 8, "schedule": {"kind": "plateau", "milestones": [3]}},
            "schedule.milestones = [3]: must be omitted in a schedule of kind plateau",
        ),
        (
            {"schedule": {"kind": "plateau"}, "example_filter": {}},
            "example_filter = {'backward_every': 4, 'keep': 0.5}: needs a schedule that does not depend on validation, "
            "not plateau",
        ),
        (
            {"epochs": 8, "schedule": {"kind": "linear", "first_cycle": 8, "cycles": [3, 5]}},
            "schedule.cycles = [3, 5]: must be omitted in a schedule of kind linear",
        ),
    ],
)
def test_a_schedule_must_fit_the_recipe(recipe: dict[str, Any], message: str) -> None:
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


@pytest.mark.parametrize("milestones", [(2,), (3, 4, 8), ()])
@pytest.mark.parametrize("minimum", [0.0, 0.03])
def test_steps_equal_those_of_torch(milestones: tuple[int, ...], minimum: float) -> None:
    epochs, steps = 9, 5
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    by_torch = torch.optim.lr_scheduler.MultiStepLR(optimizer, [end * steps for end in milestones], gamma=0.2)
    schedule = Schedule(kind="steps", milestones=milestones, factor=0.2, minimum=minimum)
    Recipe(epochs=epochs, schedule=schedule)
    for step in range(epochs * steps):
        expected = max(minimum, optimizer.param_groups[0]["lr"])
        assert schedule.learning_rate(step / steps, initial=0.4) == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        by_torch.step()
    assert schedule.cycle_ends(epochs) == list(milestones)
    assert schedule.cycle_ends(3) == [end for end in milestones if end <= 3]


@pytest.mark.parametrize(
    ("epochs", "milestones"),
    [(150, [75, 112]), (20, [10, 15]), (300, [150, 224]), (3, [1, 2]), (2, [1]), (1, [])],
)
def test_milestones_are_scaled_with_the_training(epochs: int, milestones: list[int]) -> None:
    recipe = Recipe(epochs=150, schedule=Schedule(kind="steps", milestones=(75, 112)))
    stretched = recipe.with_epochs(epochs)
    assert stretched.to_mapping()["schedule"]["milestones"] == milestones
    assert unfinished_cycle(stretched) is None


@many_examples
@given(st.lists(st.integers(1, 99), unique=True, max_size=8).map(sorted), st.integers(1, 250))
def test_scaled_milestones_keep_an_epoch_each_and_their_place(milestones: list[int], epochs: int) -> None:
    own = Schedule(kind="steps", milestones=tuple(milestones))
    scaled = list(own.stretched(epochs, own=100).milestones or ())
    assert len(scaled) == min(len(milestones), epochs - 1)
    assert all(low < high for low, high in pairwise([0, *scaled, epochs]))
    for new, old in zip(scaled, milestones, strict=False):
        assert abs(new - old * epochs / 100) <= 0.5 + len(milestones)
    assert own.stretched(100, own=100) == own


Monitor = Literal["validation-loss", "validation-accuracy"]


@many_examples
@given(
    st.lists(st.integers(0, 40), max_size=60),
    st.integers(0, 4),
    st.sampled_from([0.0, 1e-4, 0.1]),
    st.sampled_from(get_args(Monitor)),
)
def test_plateaus_equal_those_of_torch(values: list[int], patience: int, threshold: float, monitor: Monitor) -> None:
    schedule = Schedule(
        kind="plateau", factor=0.5, patience=patience, threshold=threshold, monitor=monitor, minimum=0.003
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    by_torch = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="min" if monitor == "validation-loss" else "max",
        factor=0.5,
        patience=patience,
        threshold=threshold,
        min_lr=0.003,
    )
    for epoch, value in enumerate(values, 1):
        by_torch.step(value / 10)
        plateaus = schedule.plateaus(each / 10 for each in values[:epoch])
        rate = schedule.learning_rate(epoch + 0.3, initial=0.1, plateaus=plateaus)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_a_plateau_may_come_at_any_time() -> None:
    recipe = Recipe(epochs=30, schedule=Schedule(kind="plateau"))
    assert recipe.schedule.cycle_ends(1000) == []
    assert unfinished_cycle(recipe) is None
    assert recipe.with_epochs(7).schedule == recipe.schedule
    assert Schedule().plateaus([1.0] * 100) == 0


def test_a_minimum_above_the_learning_rate_never_raises_it() -> None:
    for schedule in (Schedule(kind="plateau", minimum=0.5), Schedule(kind="steps", milestones=(1,), minimum=0.5)):
        assert schedule.learning_rate(5, initial=0.1, plateaus=2) == 0.1


def test_one_cycle_without_warmup_equals_the_first_cosine_cycle() -> None:
    single = Schedule(kind="one-cycle", first_cycle=9, warmup_fraction=0.0)
    restarting = Schedule(first_cycle=9)
    for step in range(90):
        assert single.learning_rate(step / 10, initial=0.1) == restarting.learning_rate(step / 10, initial=0.1)


def test_every_cycle_starts_at_the_initial_learning_rate() -> None:
    schedule = Schedule(first_cycle=1, cycle_factor=3, minimum=0.0)
    for end in schedule.cycle_ends(10_000):
        assert schedule.learning_rate(end, initial=0.1) == 0.1
        assert schedule.learning_rate(end - 1e-6, initial=0.1) < 1e-3
