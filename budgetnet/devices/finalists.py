"""Latency of a study's finalists: predicted, and measured where this is the device."""

from __future__ import annotations

from collections.abc import Sequence

from budgetnet.common.errors import InputError
from budgetnet.devices.machine import obstacle, require_quiet
from budgetnet.devices.networks import time_networks
from budgetnet.devices.runtimes import runtime_of
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.study.finalists import FinalistLatency

_ROUNDS = 3


def latencies_of(specs: Sequence[ModelSpec], budget: Budget) -> tuple[list[FinalistLatency], str]:
    """Return the latency of networks, and why they were not timed whole; empty if they were.

    Args:
        specs: the networks.
        budget: with a limit of the latency.

    Raises:
        InputError: the device's file is missing or invalid, or lacks an operation of a network.
    """
    device = budget.device
    predicted = [device.latency.predict(spec) for spec in specs]
    seconds: list[float] | None = None
    if not (reason := obstacle(device)):
        settings = device.runtime
        runtime = runtime_of(settings.name, threads=settings.threads, batch=settings.batch)
        try:
            require_quiet(runtime)
            seconds = time_networks(runtime, specs, rounds=_ROUNDS)
        except InputError as error:
            reason = error.rule
    return [
        FinalistLatency(
            predicted_ms=1e3 * each.seconds,
            error=each.error,
            measured_ms=None if seconds is None else 1e3 * seconds[place],
        )
        for place, each in enumerate(predicted)
    ], reason
