"""Learning rates and early stopping of a training, against formulas in the test and torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support import TINY, learning_rates, patient, prepare, restarts, tiny_recipe

from budgetnet.data import DataSet
from budgetnet.runs.schedule import EarlyStopping, Schedule
from budgetnet.training.trainer import train


@pytest.mark.parametrize(
    ("first_cycle", "factor", "minimum", "ends"),
    [
        (2, 1, 0.0, {2, 4, 6}),
        (2, 2, 0.001, {2, 6}),
        (1, 1, 0.01, {1, 2, 3, 4, 5, 6}),
        (1, 2, 0.0, {1, 3}),
        (1, 3, 0.0, {1, 4}),
        (9, 1, 0, set()),
    ],
)
def test_learning_rates_match_the_formula_of_loshchilov_and_hutter(
    digits: DataSet, tmp_path: Path, first_cycle: int, factor: int, minimum: float, ends: set[int]
) -> None:
    schedule = restarts(first_cycle, cycle_factor=factor, minimum=minimum)
    recipe = tiny_recipe(epochs=6, learning_rate=0.05, schedule=schedule)
    with learning_rates() as used:
        record = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path)
    steps, expected = 4, []
    start, length = 0.0, float(first_cycle)
    for step in range(6 * steps):
        while step / steps >= start + length:
            start, length = start + length, length * factor
        current = step / steps - start
        expected.append(minimum + (0.05 - minimum) * (1 + math.cos(math.pi * current / length)) / 2)
    assert used == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert [epoch.learning_rate for epoch in record.curves] == pytest.approx(expected[steps - 1 :: steps], rel=1e-9)
    cycles = [1 + sum(end < epoch for end in ends) for epoch in range(1, 7)]
    assert [epoch.cycle for epoch in record.curves] == cycles
    assert record.result.cycles == len(ends)


def test_a_constant_schedule_keeps_the_learning_rate(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(learning_rate=0.03, schedule=Schedule(kind="constant"))
    with learning_rates() as used:
        record = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path)
    assert used == pytest.approx([0.03] * 8)
    assert record.result.cycles == 0
    assert {epoch.cycle for epoch in record.curves} == {1}


@pytest.mark.parametrize("monitor", ["validation-loss", "validation-accuracy"])
def test_a_plateau_lowers_the_learning_rate_as_torch_does(digits: DataSet, tmp_path: Path, monitor: Any) -> None:
    schedule = Schedule(kind="plateau", monitor=monitor, factor=0.3, patience=1, minimum=0.01)
    recipe = tiny_recipe(epochs=12, learning_rate=0.4, schedule=schedule)
    with learning_rates() as used:
        record = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    by_torch = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="min" if monitor == "validation-loss" else "max", factor=0.3, patience=1, min_lr=0.01
    )
    expected = []
    for epoch in record.curves:
        expected.append(optimizer.param_groups[0]["lr"])
        by_torch.step(epoch.validation_loss if monitor == "validation-loss" else epoch.validation_accuracy)
    assert [epoch.learning_rate for epoch in record.curves] == pytest.approx(expected, rel=1e-9)
    assert used == pytest.approx([rate for rate in expected for _ in range(4)], rel=1e-6)
    assert len(set(expected)) >= 3, "the test needs two plateaus"
    assert record.result.cycles == 0


def last_epoch(curves: list[float], patience: int, min_delta: float) -> int:
    """Return the epoch of early stopping: the first with ``patience`` epochs since the last improvement."""
    best, improved = math.inf, 0
    for number, loss in enumerate(curves, 1):
        if loss < best - min_delta:
            best, improved = loss, number
        if number - improved == patience:
            return number
    return len(curves)


@pytest.mark.parametrize(
    ("rate", "patience", "min_delta"),
    [(0.4, 1, 0.0), (0.4, 2, 0.0), (0.4, 3, 0.0), (0.01, 4, 5.0), (0.01, 1, 0.1), (0.01, 2, 0.2)],
)
def test_early_stopping_ends_at_the_epoch_computed_from_a_longer_run(
    digits: DataSet, tmp_path: Path, rate: float, patience: int, min_delta: float
) -> None:
    free = tiny_recipe(epochs=20, learning_rate=rate)
    stopped = tiny_recipe(epochs=20, learning_rate=rate, early_stopping=patient(patience, min_delta=min_delta))
    data = prepare(digits, free)
    losses = [epoch.validation_loss for epoch in train(TINY, data, free, seed=0, out=tmp_path).curves]
    record = train(TINY, data, stopped, seed=0, out=tmp_path)
    expected = last_epoch(losses, patience, min_delta)
    assert expected < 20, "the test needs early stopping"
    assert not min_delta or expected < last_epoch(losses, patience, 0.0), "the test needs an effect of min_delta"
    assert [epoch.validation_loss for epoch in record.curves] == losses[:expected]
    assert record.result.best_epoch == 1 + losses[:expected].index(min(losses[:expected]))
    assert "early stopping" in record.result.reason


def test_early_stopping_can_monitor_the_training_loss(digits: DataSet, tmp_path: Path) -> None:
    waiting = EarlyStopping(patience=2, min_delta=0.05, monitor="training-loss")
    free = tiny_recipe(epochs=20, learning_rate=0.4)
    stopped = free.model_copy(update={"early_stopping": waiting})
    data = prepare(digits, free)
    curves = train(TINY, data, free, seed=0, out=tmp_path).curves
    record = train(TINY, data, stopped, seed=0, out=tmp_path)
    expected = last_epoch([epoch.train_loss for epoch in curves], 2, 0.05)
    assert expected not in (20, last_epoch([epoch.validation_loss for epoch in curves], 2, 0.05))
    assert len(record.curves) == expected
    assert record.result.reason == "early stopping: training loss did not fall for 2 epochs"
    losses = [epoch.validation_loss for epoch in record.curves]
    assert record.result.best_epoch == 1 + losses.index(min(losses)), (
        "the best epoch still has the lowest validation loss"
    )
