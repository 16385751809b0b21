"""`budgetnet.check`: check a network against a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.api.inputs import spec_of
from budgetnet.common.errors import InputError
from budgetnet.model.budget import Budget, Verdict
from budgetnet.model.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn


def check(
    network: ModelSpec | Path | str | nn.Module,
    *,
    max_params: float | str | None = None,
    max_macs: float | str | None = None,
    max_activations: float | str | None = None,
    input_shape: tuple[int, int, int] = (3, 32, 32),
) -> Verdict:
    """Check a network against a budget.

    A spec is counted in closed form and not built. A torch module is counted by torch on one image: all its parameters,
    and the multiply-accumulates and outputs of its convolutions and linear layers.

    Args:
        network: a spec, the name of one, the path of its file, or a torch module.
        max_params: maximum number of parameters, such as 5e6 or "5M". Default: no limit.
        max_macs: maximum number of multiply-accumulates per image. Default: no limit.
        max_activations: maximum number of output elements of convolutions and linear layers per image. Default: no
            limit.
        input_shape: image as (channels, height, width), for a torch module; a spec has its own.

    Raises:
        InputError: a limit is not a whole number of at least 1, no network has that name, a file breaks a rule, or the
            module fails on such an image.
    """
    limits = {"max_params": max_params, "max_macs": max_macs, "max_activations": max_activations}
    budget = Budget.from_mapping(limits)
    if isinstance(network, ModelSpec | Path | str):
        return budget.check(spec_of(network))
    from torch import nn

    if not isinstance(network, nn.Module):
        raise InputError("network", network, "must be a spec, the name of one, the path of a file, or a torch module")
    from budgetnet.model.module_cost import module_cost

    verdict = Verdict(budget, module_cost(network, input_shape=input_shape), name=type(network).__name__)
    verdict.frozen_params = sum(each.numel() for each in network.parameters() if not each.requires_grad)
    return verdict
