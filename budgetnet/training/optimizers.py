"""What moves weights: stochastic gradient descent with its parameter groups, Muon for convolutions, and Lookahead.

Everything a step needs lies on the device, learning rates included, so that it can be recorded as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import Lookahead, Muon

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of X, (X X^T) X and (X X^T)^2 X (Jordan et al. 2024): they bring singular values near 1 in few steps."""
_SMALLEST_NORM = 1e-7
"""Keeps zeros from being divided by their norm."""


class Rates(NamedTuple):
    """Learning rate and weight decay of stochastic gradient descent, as torch takes them."""

    scale: float
    """What a recipe's learning rate is multiplied by."""
    weight_decay: float
    """L2 penalty added to the gradient of the mean loss."""

    @classmethod
    def of(cls, recipe: Recipe) -> Rates:
        """Convert a recipe's units: for a step, or for 1,024 examples whatever batch size and momentum.

        With momentum m a gradient moves a weight 1 + 1 / (1 - m) times in all: once by Nesterov's look ahead, and by
        the geometric sum of the momentum (Jordan 2024, section 3.1 and the code beside it).
        """
        if not recipe.per_1024_examples:
            return cls(1.0, recipe.weight_decay)
        filtering = recipe.example_filter
        images = filtering.kept(recipe.batch_size) if filtering else recipe.batch_size
        scale = images / (1024 * (1 + 1 / (1 - recipe.momentum)))
        return cls(scale, recipe.weight_decay / recipe.learning_rate)


def orthogonalise(matrix: Tensor, *, iterations: int) -> Tensor:
    """Bring all singular values of a matrix near 1 by Newton-Schulz iterations in bfloat16.

    Args:
        matrix: (rows, columns), of any floating-point type.
        iterations: how many; each multiplies small singular values by about 3.4.

    Returns:
        bfloat16 (rows, columns).
    """
    first, third, fifth = _NEWTON_SCHULZ
    transposed = matrix.shape[0] > matrix.shape[1]
    current = matrix.to(torch.bfloat16)
    if transposed:
        current = current.T
    current = current / (current.norm() + _SMALLEST_NORM)
    for _ in range(iterations):
        gram = current @ current.T
        mixed = torch.addmm(gram, gram, gram, beta=third, alpha=fifth)
        current = torch.addmm(current, mixed, current, beta=first)
    return current.T if transposed else current


class MuonOptimizer:
    """Muon for convolution weights (Jordan et al. 2024), each kept at a norm of the square root of its output channels.

    torch.optim.Muon takes matrices only.
    """

    def __init__(self, weights: Iterable[Tensor], momenta: Iterable[Tensor], settings: Muon, *, rate: Tensor) -> None:
        """Take weights over.

        Args:
            weights: (out_channels, ...) each, changed in place.
            momenta: a tensor like each weight, changed in place.
            settings: momentum and iterations.
            rate: step size, a single number on the device, read at each step.
        """
        self._pairs = list(zip(weights, momenta, strict=True))
        self._settings, self._rate = settings, rate

    @torch.no_grad()
    def step(self) -> None:
        """Move every weight along its gradient, which is left as it is."""
        momentum = self._settings.momentum
        for weight, moving in self._pairs:
            if weight.grad is None:
                continue
            moving.mul_(momentum).add_(weight.grad)
            direction = weight.grad.add(moving, alpha=momentum).reshape(len(weight), -1)
            step = orthogonalise(direction, iterations=self._settings.iterations)
            weight.mul_(len(weight) ** 0.5 / weight.norm().clamp_min(_SMALLEST_NORM))
            weight.sub_(step.view_as(weight).to(weight.dtype) * self._rate)


class Optimizer:
    """All of a network's trainable parameters, each moved by what the recipe says of it."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        """Take a network's parameters over; scales of batch norm that the recipe freezes are frozen here.

        Args:
            network: on the device to train on.
            recipe: its optimiser's fields are used.
        """
        device = next(network.parameters()).device
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        if recipe.freeze_norm_scales:
            for norm in norms:
                norm.weight.requires_grad = False
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        # Zeros are what the first step would start from. Here already, they stay in one place, which a recording needs.
        self.momenta: dict[str, Tensor] = {}
        """Momentum by the name of its parameter."""
        by_muon = {name for name, parameter in trained.items() if recipe.muon and parameter.ndim == 4}
        for name, parameter in trained.items():
            if recipe.momentum or name in by_muon:
                self.momenta[name] = torch.zeros_like(parameter)
        rates, biases = Rates.of(recipe), {id(norm.bias) for norm in norms}
        multiples = {
            name: recipe.norm_bias_rate if id(parameter) in biases else 1.0
            for name, parameter in trained.items()
            if name not in by_muon
        }
        self._factors: list[tuple[Tensor, float]] = []
        """The rate of each group, on the device, and what it is as a multiple of the recipe's."""
        groups = []
        for multiple in dict.fromkeys(multiples.values()):
            members = [trained[name] for name in multiples if multiples[name] == multiple]
            groups.append(
                {
                    "params": members,
                    "lr": self._rate(rates.scale * multiple, device),
                    # A step's decay is the product of both, so it stays what it is without the multiple.
                    "weight_decay": rates.weight_decay / multiple,
                }
            )
        self._sgd = torch.optim.SGD(
            groups,
            lr=self._factors[0][0],
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            fused=device.type in ("cpu", "cuda"),
        )
        for name in multiples:
            if name in self.momenta:
                self._sgd.state[trained[name]]["momentum_buffer"] = self.momenta[name]
        self._muon: MuonOptimizer | None = None
        if recipe.muon:
            weights = [trained[name] for name in trained if name in by_muon]
            momenta = [self.momenta[name] for name in trained if name in by_muon]
            rate = self._rate(recipe.muon.learning_rate / recipe.learning_rate, device)
            self._muon = MuonOptimizer(weights, momenta, recipe.muon, rate=rate)
        self._parameters = list(trained.values())

    def _rate(self, factor: float, device: torch.device) -> Tensor:
        rate = torch.zeros((), dtype=torch.float32, device=device)
        self._factors.append((rate, factor))
        return rate

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, rate: Tensor) -> None:
        """Move all parameters by their gradients.

        Args:
            rate: the recipe's learning rate at this step, a single number on the device.
        """
        for own, factor in self._factors:
            own.copy_(rate if factor == 1.0 else rate * factor)
        self._sgd.step()
        if self._muon is not None:
            self._muon.step()


class SlowWeights:
    """Lookahead: a slow average of weights, which the weights are set to every few steps (Zhang et al. 2019)."""

    def __init__(self, values: dict[str, Tensor], settings: Lookahead, *, steps: int) -> None:
        """Start from the weights as they are.

        Args:
            values: floating-point tensors of the network by name, running statistics included, changed in place.
            settings: when and how far.
            steps: steps of the whole training.
        """
        self._settings, self._steps = settings, steps
        self._values = list(values.values())
        self.average = {name: value.detach().clone() for name, value in values.items()}
        """The slow average, by the name of its tensor."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Bring weights and average together where a step asks for it.

        Args:
            step: steps that have been taken since the training began.
        """
        settings, average = self._settings, list(self.average.values())
        if step >= self._steps:
            torch._foreach_copy_(self._values, average)
        elif step % settings.every == 0:
            decay = settings.decay**settings.every * (step / self._steps) ** settings.power
            torch._foreach_lerp_(average, self._values, 1 - decay)
            torch._foreach_copy_(self._values, average)
