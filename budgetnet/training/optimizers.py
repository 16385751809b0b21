"""Optimisers: SGD, Adam and AdamW with parameter groups, Muon for convolutions, and Lookahead.

All state of a step is on the device, learning rates included, so that the step can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import Lookahead, Muon

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of X, (X X^T) X and (X X^T)^2 X (Jordan et al. 2024): singular values come near 1 in few iterations."""
_SMALLEST_NORM = 1e-7
"""Lower bound of norms, against division by zero."""


class Rates(NamedTuple):
    """Learning rate scale and weight decay, in torch's units."""

    scale: float
    """Factor on the recipe's learning rate."""
    weight_decay: float
    """Weight decay as torch's optimiser takes it."""

    @classmethod
    def of(cls, recipe: Recipe) -> Rates:
        """Convert the recipe's values, which are per step or, with `per_1024_examples`, per 1,024 examples.

        With momentum m a gradient changes a weight by 1 + 1 / (1 - m) times the learning rate in total: once by
        Nesterov's lookahead, and by the geometric sum of the momentum (Jordan 2024, section 3.1 and its code).
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
        matrix: (rows, columns), any floating-point type.
        iterations: number of iterations; each multiplies small singular values by about 3.4.

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
    """Muon for convolution weights (Jordan et al. 2024); each step scales a weight to norm sqrt(out_channels) first.

    torch.optim.Muon supports matrices only.
    """

    def __init__(self, weights: Iterable[Tensor], momenta: Iterable[Tensor], settings: Muon, *, rate: Tensor) -> None:
        """Create the optimiser.

        Args:
            weights: (out_channels, ...) each, changed in place.
            momenta: momentum buffer of each weight, changed in place.
            settings: momentum and number of iterations.
            rate: learning rate, a scalar on the device, read at each step.
        """
        self._pairs = list(zip(weights, momenta, strict=True))
        self._settings, self._rate = settings, rate

    @torch.no_grad()
    def step(self) -> None:
        """Update every weight; gradients are not changed."""
        momentum = self._settings.momentum
        for weight, buffer in self._pairs:
            if weight.grad is None:
                continue
            buffer.mul_(momentum).add_(weight.grad)
            direction = weight.grad.add(buffer, alpha=momentum).reshape(len(weight), -1)
            update = orthogonalise(direction, iterations=self._settings.iterations)
            weight.mul_(len(weight) ** 0.5 / weight.norm().clamp_min(_SMALLEST_NORM))
            weight.sub_(update.view_as(weight).to(weight.dtype) * self._rate)


class Optimizer:
    """Optimiser of a network as a recipe specifies it: SGD, Adam or AdamW, and Muon for convolutions if it is set."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        """Create the parameter groups, and freeze batch norm scales if the recipe requires it.

        Args:
            network: on the training device.
            recipe: its optimiser fields are used.
        """
        device = next(network.parameters()).device
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        if recipe.freeze_norm_scales:
            for norm in norms:
                norm.weight.requires_grad = False
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        by_muon = {name for name, parameter in trained.items() if recipe.muon and parameter.ndim == 4}
        others = {name: parameter for name, parameter in trained.items() if name not in by_muon}
        is_adaptive = recipe.optimizer.kind != "sgd"
        # All of these start at zero in any case; created here, they have fixed addresses, as a CUDA graph requires.
        has_momentum = trained if is_adaptive or recipe.momentum else by_muon
        self.momenta: dict[str, Tensor] = {
            name: torch.zeros_like(parameter) for name, parameter in trained.items() if name in has_momentum
        }
        """Momentum buffers by parameter name; in Adam, averages of gradients."""
        self.squares: dict[str, Tensor] = {
            name: torch.zeros_like(parameter) for name, parameter in others.items() if is_adaptive
        }
        """Averages of squared gradients by parameter name, in Adam."""
        # One vector of which each parameter has an entry, as torch counts the steps of each.
        self.steps = torch.zeros(len(self.squares), dtype=torch.float32, device=device)
        """Number of steps of each parameter, in Adam."""
        biases = {id(norm.bias) for norm in norms}
        multiples = {
            name: recipe.norm_bias_rate if id(parameter) in biases else 1.0 for name, parameter in others.items()
        }
        self._factors: list[tuple[Tensor, float]] = []
        """Learning rate of each group, on the device, and its factor relative to the recipe's."""
        self._torch = self._torch_optimizer(others, multiples, recipe, device)
        self._muon: MuonOptimizer | None = None
        if recipe.muon:
            weights = [trained[name] for name in trained if name in by_muon]
            momenta = [self.momenta[name] for name in trained if name in by_muon]
            rate = self._rate(recipe.muon.learning_rate / recipe.learning_rate, device)
            self._muon = MuonOptimizer(weights, momenta, recipe.muon, rate=rate)
        self._parameters, self._clipping = list(trained.values()), recipe.gradient_clipping

    def _torch_optimizer(
        self, parameters: dict[str, nn.Parameter], multiples: dict[str, float], recipe: Recipe, device: torch.device
    ) -> torch.optim.Optimizer:
        """Return torch's optimiser of parameters, with the state of this one.

        Args:
            parameters: by name.
            multiples: factor on the learning rate of each, by name.
            recipe: its optimiser fields are used.
            device: device of the parameters.
        """
        rates, settings = Rates.of(recipe), recipe.optimizer
        groups: list[dict[str, Any]] = []
        for multiple in dict.fromkeys(multiples.values()):
            # SGD and AdamW multiply decay by the learning rate; dividing here keeps the decay per step unchanged. The
            # step of Adam hardly depends on the size of a gradient.
            decay = rates.weight_decay / (1.0 if settings.kind == "adam" else multiple)
            members = [parameters[name] for name in parameters if multiples[name] == multiple]
            groups.append({"params": members, "lr": self._rate(rates.scale * multiple, device), "weight_decay": decay})
        fused = device.type in ("cpu", "cuda")
        if settings.kind == "sgd":
            sgd = torch.optim.SGD(
                groups, lr=groups[0]["lr"], momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused
            )
            for name, parameter in parameters.items():
                if name in self.momenta:
                    sgd.state[parameter]["momentum_buffer"] = self.momenta[name]
            return sgd
        adaptive = (torch.optim.Adam if settings.kind == "adam" else torch.optim.AdamW)(
            groups,
            lr=groups[0]["lr"],
            betas=settings.betas,
            eps=settings.epsilon,
            fused=fused,
            capturable=device.type == "cuda",
        )
        # The steps before a capture run without a graph, which torch warns of.
        adaptive._warned_capturable_if_run_uncaptured = True
        for name, step in zip(parameters, self.steps, strict=True):
            state = {"step": step, "exp_avg": self.momenta[name], "exp_avg_sq": self.squares[name]}
            adaptive.state[parameters[name]].update(state)
        return adaptive

    def state(self) -> dict[str, Tensor]:
        """Return all state tensors by name."""
        state = {f"momentum.{name}": tensor for name, tensor in self.momenta.items()}
        state |= {f"square.{name}": tensor for name, tensor in self.squares.items()}
        return state | ({"steps": self.steps} if self.squares else {})

    def _rate(self, factor: float, device: torch.device) -> Tensor:
        rate = torch.zeros((), dtype=torch.float32, device=device)
        self._factors.append((rate, factor))
        return rate

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, rate: Tensor) -> None:
        """Update all parameters; a gradient above the recipe's norm is scaled first.

        Args:
            rate: the recipe's learning rate at this step, a scalar on the device.
        """
        if self._clipping is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clipping)
        for group_rate, factor in self._factors:
            group_rate.copy_(rate if factor == 1.0 else rate * factor)
        self._torch.step()
        if self._muon is not None:
            self._muon.step()


class SlowWeights:
    """Lookahead: a slow average of the weights, to which the weights are reset every few steps (Zhang et al. 2019)."""

    def __init__(self, values: dict[str, Tensor], settings: Lookahead, *, steps: int) -> None:
        """Start the average at the current weights.

        Args:
            values: floating-point tensors of the network by name, running statistics included, changed in place.
            settings: interval and decay.
            steps: total number of training steps.
        """
        self._settings, self._steps = settings, steps
        self._values = list(values.values())
        self.average = {name: value.detach().clone() for name, value in values.items()}
        """Slow average of each tensor, by name."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average and reset the weights to it, if this step is a multiple of the interval or the last one.

        Args:
            step: number of training steps done.
        """
        settings, average = self._settings, list(self.average.values())
        if step >= self._steps:
            torch._foreach_copy_(self._values, average)
        elif step % settings.every == 0:
            decay = settings.decay**settings.every * (step / self._steps) ** settings.power
            torch._foreach_lerp_(average, self._values, 1 - decay)
            torch._foreach_copy_(self._values, average)
