"""Optimisers against plain implementations of their published formulas."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from support import TINY, tiny_recipe
from torch import Tensor, nn

from budgetnet.common.errors import InputError
from budgetnet.runs.augmentation import ExampleFilter
from budgetnet.runs.optimizer import OptimizerChoice
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import Lookahead, Muon
from budgetnet.training.initialisation import initialise
from budgetnet.training.optimizers import Optimizer, Rates, SlowWeights, orthogonalise


def gradients_of(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Set random gradients, and return copies of them."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            found[name] = parameter.grad.clone()
    return found


def test_rates_per_1024_examples_match_the_published_recipe() -> None:
    # 1 + 1 / 0.15 = 7.6667 and 11.5 / 7.6667 = 1.5; a batch of 512 has half of it. Decay: 0.0153 / 11.5.
    recipe = tiny_recipe(
        learning_rate=11.5, weight_decay=0.0153, momentum=0.85, nesterov=True, batch_size=1024, per_1024_examples=True
    )
    rates = Rates.of(recipe)
    assert recipe.learning_rate * rates.scale == pytest.approx(1.5, rel=1e-9)
    assert rates.weight_decay == pytest.approx(0.00133043, rel=1e-5)
    halved = Rates.of(recipe.model_copy(update={"batch_size": 512}))
    assert recipe.learning_rate * halved.scale == pytest.approx(0.75, rel=1e-9)
    # Weight decay of a step, times the steps for 1,024 examples, is equal for all batch sizes.
    for batch_size in (64, 512, 4096):
        other = Rates.of(recipe.model_copy(update={"batch_size": batch_size}))
        shrunk = recipe.learning_rate * other.scale * other.weight_decay * (1024 / batch_size)
        assert shrunk == pytest.approx(0.0153 / (1 + 1 / 0.15), rel=1e-9)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("multiple", [1.0, 64.0])
def test_batch_norm_biases_have_a_multiple_of_the_learning_rate_and_the_same_decay(
    *, nesterov: bool, multiple: float
) -> None:
    recipe = tiny_recipe(momentum=0.8, weight_decay=0.01, nesterov=nesterov, norm_bias_rate=multiple)
    network = initialise(TINY, 0)
    optimizer = Optimizer(network, recipe)
    values = {name: parameter.detach().double().clone() for name, parameter in network.named_parameters()}
    buffers = {name: torch.zeros_like(value) for name, value in values.items()}
    for step, rate in enumerate((0.02, 0.01, 0.005)):
        for name, gradient in gradients_of(network, step).items():
            factor = multiple if "norm" in name and name.endswith("bias") else 1.0
            direction = gradient.double() + 0.01 / factor * values[name]
            buffers[name] = 0.8 * buffers[name] + direction
            values[name] -= factor * rate * (direction + 0.8 * buffers[name] if nesterov else buffers[name])
        optimizer.step(torch.tensor(rate))
    biases = [name for name in values if "norm" in name and name.endswith("bias")]
    assert len(biases) == 3, "of the stem and of the block's two convolutions"
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), values[name], rtol=1e-4, atol=1e-6)


def test_frozen_scales_of_batch_norm_stay_at_one() -> None:
    network = initialise(TINY, 0)
    optimizer = Optimizer(network, tiny_recipe(freeze_norm_scales=True))
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    gradients_of(network, 1)
    optimizer.step(torch.tensor(0.1))
    for name, parameter in network.named_parameters():
        frozen = "norm" in name and name.endswith("weight")
        assert torch.equal(parameter, before[name]) == frozen
        assert (name in optimizer.momenta) == (not frozen)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_newton_schulz_applies_its_polynomial_to_the_singular_values(shape: tuple[int, int], iterations: int) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, singular, right = np.linalg.svd(matrix.numpy(), full_matrices=False)
    values = singular / np.sqrt((singular**2).sum())
    for _ in range(iterations):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    expected = left @ np.diag(values) @ right
    found = orthogonalise(matrix, iterations=iterations)
    assert found.dtype == torch.bfloat16
    assert np.abs(found.double().numpy() - expected).max() < 0.04
    if iterations == 5:
        after = np.linalg.svd(found.double().numpy(), compute_uv=False)
        assert after.min() > 0.5 and after.max() < 1.4


def test_muon_updates_convolutions_and_sgd_updates_the_head() -> None:
    spec = TINY.replace(squeeze_excitation_ratio=0.5, stem={"channels": 8, "whitening": 2})
    recipe = tiny_recipe(learning_rate=0.4, momentum=0.0, weight_decay=0.0, muon=Muon(learning_rate=0.1, momentum=0.6))
    network = initialise(spec, 0)
    optimizer = Optimizer(network, recipe)
    values = {name: parameter.detach().double().numpy() for name, parameter in network.named_parameters()}
    buffers = {name: np.zeros_like(value) for name, value in values.items()}
    for step, share in enumerate((1.0, 0.5)):
        for name, gradient in gradients_of(network, step).items():
            own = gradient.double().numpy()
            if own.ndim != 4:
                values[name] = values[name] - 0.4 * share * own
                continue
            buffers[name] = 0.6 * buffers[name] + own
            direction = (own + 0.6 * buffers[name]).reshape(len(own), -1)
            left, singular, right = np.linalg.svd(direction, full_matrices=False)
            singular = singular / np.linalg.norm(singular)
            for _ in range(3):
                singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
            kept = values[name] * np.sqrt(len(own)) / np.linalg.norm(values[name])
            values[name] = kept - 0.1 * share * (left @ np.diag(singular) @ right).reshape(own.shape)
        optimizer.step(torch.tensor(0.4 * share))
    matrices = [name for name in optimizer.momenta if values[name].ndim == 4]
    assert len(matrices) == 5, "stem, two convolutions of the block and two of its gate, not the frozen whitening"
    for name, parameter in network.named_parameters():
        assert np.abs(parameter.detach().double().numpy() - values[name]).max() < 0.01, name


ADAPTIVE = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("multiple", [1.0, 64.0])
def test_adam_and_adamw_equal_those_of_torch(kind: Literal["adam", "adamw"], multiple: float) -> None:
    choice = OptimizerChoice(kind=kind, betas=(0.8, 0.95), epsilon=1e-6)
    recipe = tiny_recipe(weight_decay=0.05, optimizer=choice, norm_bias_rate=multiple)
    network, other = initialise(TINY, 0), initialise(TINY, 0)
    optimizer = Optimizer(network, recipe)
    assert Rates.of(recipe) == (1.0, 0.05)
    by_torch = {}
    for name, parameter in other.named_parameters():
        is_bias = "norm" in name and name.endswith("bias")
        # Decay per step is the product of both in AdamW; in Adam, the penalty alone is what the gradient sees.
        decay = 0.05 / (multiple if is_bias and kind == "adamw" else 1.0)
        settings: dict[str, Any] = {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": decay}
        by_torch[name] = ADAPTIVE[kind]([parameter], lr=1.0, foreach=False, **settings)
    for step, rate in enumerate((0.02, 0.01, 0.005, 0.005)):
        gradients_of(network, step)
        gradients_of(other, step)
        optimizer.step(torch.tensor(rate))
        for name, each in by_torch.items():
            is_bias = "norm" in name and name.endswith("bias")
            each.param_groups[0]["lr"] = rate * (multiple if is_bias else 1.0)
            each.step()
    for (name, parameter), expected in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6, msg=name)
    assert optimizer.steps.tolist() == [4.0] * len(by_torch)


def test_muon_leaves_all_but_convolutions_to_adamw() -> None:
    muon = Muon(learning_rate=0.1)
    mixed = tiny_recipe(learning_rate=0.4, weight_decay=0.0, muon=muon, optimizer=OptimizerChoice(kind="adamw"))
    with_sgd = mixed.model_copy(update={"optimizer": OptimizerChoice()})
    with_adamw = mixed.model_copy(update={"muon": None})
    values = []
    for recipe in (mixed, with_sgd, with_adamw):
        network = initialise(TINY, 0)
        optimizer = Optimizer(network, recipe)
        for step in range(3):
            gradients_of(network, step)
            optimizer.step(torch.tensor(0.4))
        values.append(dict(network.named_parameters()))
    for name, parameter in values[0].items():
        assert torch.equal(parameter, values[1 if parameter.ndim == 4 else 2][name]), name


def test_state_of_adam_is_all_that_a_step_changes() -> None:
    recipe = tiny_recipe(optimizer=OptimizerChoice(kind="adam"), muon=Muon())
    network = initialise(TINY, 0)
    optimizer = Optimizer(network, recipe)
    state = optimizer.state()
    addresses = {name: tensor.data_ptr() for name, tensor in state.items()}
    gradients_of(network, 0)
    optimizer.step(torch.tensor(0.1))
    assert {name: tensor.data_ptr() for name, tensor in optimizer.state().items()} == addresses
    assert all(bool(tensor.any()) for tensor in state.values())
    vectors = [name for name, parameter in network.named_parameters() if parameter.ndim != 4]
    assert [name for name in state if name.startswith("square.")] == [f"square.{name}" for name in vectors]


def test_lookahead_matches_its_published_update() -> None:
    settings, steps = Lookahead(every=2, decay=0.9, power=2.0), 7
    weight = torch.zeros(3, dtype=torch.float64)
    slow = SlowWeights({"weight": weight}, settings, steps=steps)
    fast, average = 0.0, 0.0
    for step in range(1, steps + 1):
        fast += step
        weight += step
        slow.update(step)
        if step == steps:
            fast = average
        elif step % 2 == 0:
            decay = 0.9**2 * (step / steps) ** 2
            average = decay * average + (1 - decay) * fast
            fast = average
        assert weight.tolist() == pytest.approx([fast] * 3, rel=1e-12)
    assert average != 0.0


def test_the_default_recipe_trains_every_parameter_in_one_group() -> None:
    network = initialise(TINY, 0)
    optimizer = Optimizer(network, Recipe())
    assert list(optimizer.momenta) == [name for name, _ in network.named_parameters()]
    (group,) = optimizer._torch.param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, False)


def test_rates_of_filtered_batches_depend_on_the_selected_images() -> None:
    plain = tiny_recipe(batch_size=512, per_1024_examples=True)
    filtered = plain.model_copy(update={"batch_size": 1024, "example_filter": ExampleFilter(keep=0.5)})
    assert Rates.of(filtered) == Rates.of(plain)


def test_lookahead_requires_ten_times_its_interval_in_steps() -> None:
    # 64 images in batches of 16 are 4 steps an epoch: 5 epochs are 20 steps, so an interval of 2 is allowed.
    recipe = tiny_recipe(epochs=5, lookahead=Lookahead(every=2))
    recipe.check_num_steps(64)
    with pytest.raises(InputError, match=r"^lookahead.every = 2: must be at most a tenth of the training's 16 steps"):
        recipe.model_copy(update={"epochs": 4}).check_num_steps(64)
    tiny_recipe(epochs=1).check_num_steps(1)
