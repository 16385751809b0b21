"""`budgetnet.check`: check a network against a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.api.inputs import dataset_of, spec_of
from budgetnet.common.errors import InputError
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.verdict import Verdict

if TYPE_CHECKING:
    from torch import nn

    from budgetnet.data import DataSet

_DEFAULT_SHAPE = (3, 32, 32)


def check(
    network: ModelSpec | Path | str | nn.Module,
    *,
    max_params: float | str | None = None,
    max_macs: float | str | None = None,
    max_activations: float | str | None = None,
    max_weights: float | str | None = None,
    weight_precision: str = "float32",
    max_peak_memory: float | str | None = None,
    max_latency_ms: float | str | None = None,
    device_file: str | Path | None = None,
    data: DataSet | str | None = None,
    input_shape: tuple[int, int, int] | None = None,
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
        max_weights: maximum bytes of the deployed network's weights, such as 524288 or "512K", where K is 1024 bytes.
            Default: no limit.
        weight_precision: precision that these weights are stored in: float32, float16 or int8.
        max_peak_memory: maximum bytes of the deployed network's maps at once, for one image. Default: no limit.
        max_latency_ms: maximum milliseconds that the deployed network takes, such as 2 or "0.5ms". Default: no limit.
        device_file: file of the device that it is deployed on, which `budgetnet.measure_device` writes.
        data: data set, or the name of one. A spec is counted for its images and classes, as it would be trained, and a
            torch module on such an image. Default: the spec's own.
        input_shape: image as (channels, height, width), in place of a data set's. Default: the spec's own, or 3x32x32
            for a torch module.

    Raises:
        InputError: a limit is not a whole number of at least 1, or one of the deployed network is given for a torch
            module; no network has that name, a file breaks a rule, the device's file lacks an operation of the network,
            the network cannot be used on such an image, or both ``data`` and ``input_shape`` are given.
        DataError: the data set is missing or damaged.
    """
    limits = {
        "max_params": max_params,
        "max_macs": max_macs,
        "max_activations": max_activations,
        "max_weights": max_weights,
        "weight_precision": weight_precision,
        "max_peak_memory": max_peak_memory,
        "max_latency_ms": max_latency_ms,
        "device_file": device_file,
    }
    budget = Budget.from_mapping(limits)
    if data is not None and input_shape is not None:
        raise InputError("input_shape", input_shape, "must not be given with data, which has its own")
    if isinstance(network, ModelSpec | Path | str):
        spec = spec_of(network)
        if data is not None:
            dataset = dataset_of(data)
            spec = spec.adapted(input_shape=dataset.input_shape, num_classes=dataset.num_classes)
        elif input_shape is not None:
            spec = spec.adapted(input_shape=input_shape, num_classes=spec.num_classes)
        # Raises where the device's file cannot tell.
        budget.predicted(spec)
        return budget.check(spec)
    from torch import nn

    if not isinstance(network, nn.Module):
        raise InputError("network", network, "must be a spec, the name of one, the path of a file, or a torch module")
    for name, allowed in budget.deployed.items():
        raise InputError(f"max_{name}", allowed, "needs a spec, as it is not known how a torch module is deployed")
    from budgetnet.model.module_cost import module_cost

    shape = input_shape or (_DEFAULT_SHAPE if data is None else dataset_of(data).input_shape)
    verdict = Verdict(budget, module_cost(network, input_shape=shape), name=type(network).__name__)
    verdict.frozen_params = sum(each.numel() for each in network.parameters() if not each.requires_grad)
    return verdict
