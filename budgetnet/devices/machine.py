"""This machine: what it is, and whether it is quiet enough to measure on."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

from budgetnet.common import cpu
from budgetnet.common.errors import InputError
from budgetnet.devices.runtimes import Runtime
from budgetnet.model.deployed.device_file import DeviceFile, Hardware
from budgetnet.model.deployed.graph import Graph, Node

_SAMPLES = 100
_SECONDS = 0.005
"""Least time of a sample: shorter ones seldom meet another program's turn on the processor."""
_CHANNELS, _SIDE, _LAYERS = 64, 16, 3
"""The reference: a few convolutions, which take a fraction of a millisecond on most machines."""
MOST_SPREAD = 0.10
"""Spread of the reference's times, above which nothing is measured."""


def this_machine() -> Hardware:
    """Return the hardware of this machine."""
    return Hardware(
        cpu=cpu.name()[:200],
        machine=platform.machine()[:100],
        system=platform.system()[:100],
        cores=cpu.available_cores(),
    )


def spread(runtime: Runtime, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return by how much a fixed computation's slow runs exceed its median: the 90th percentile over it, minus 1.

    Args:
        runtime: what executes the computation.
        clock: a monotonic clock, in seconds.
    """
    graph, place = Graph((_CHANNELS, _SIDE, _SIDE)), -1
    for _ in range(_LAYERS):
        node = Node("conv", (place,), _CHANNELS, _CHANNELS, _SIDE, _SIDE, 3, 1, 1, 1, bias=True)
        place = graph.same("activation", [graph.add(node)])
    run = runtime.prepare(graph)

    def sample(calls: int) -> float:
        start = clock()
        for _ in range(calls):
            run()
        return clock() - start

    calls = 1
    sample(calls)
    while sample(calls) < _SECONDS:
        calls *= 2
    times = [sample(calls) for _ in range(_SAMPLES)]
    return statistics.quantiles(times, n=10)[-1] / statistics.median(times) - 1


def require_quiet(runtime: Runtime, *, clock: Callable[[], float] = time.perf_counter) -> None:
    """Require that nothing else uses this machine much.

    Args:
        runtime: what executes a fixed computation.
        clock: a monotonic clock, in seconds.

    Raises:
        InputError: the times of a fixed computation vary too much to measure anything.
    """
    found = statistics.median(spread(runtime, clock=clock) for _ in range(3))
    if found > MOST_SPREAD:
        rule = (
            f"this machine is too busy to measure: a fixed computation varies by {100 * found:.0f} %, "
            f"at most {100 * MOST_SPREAD:.0f} % is allowed; end other programs, and fix the processor's frequency"
        )
        raise InputError("machine", this_machine().cpu, rule)


def obstacle(device: DeviceFile) -> str:
    """Return why this machine is not the one a file was made on, or cannot execute its networks; empty if it can."""
    here = this_machine()
    if here != device.hardware:
        return f"it was made on another machine ({device.hardware}); this one is {here}"
    version = _installed_version(device.runtime.name)
    # A build's own suffix, such as +cu132, is missing in the metadata of packages.
    if version is None or version.partition("+")[0] != device.runtime.version.partition("+")[0]:
        now = "is not installed" if version is None else f"is {version} here"
        return f"it was made with {device.runtime.name} {device.runtime.version}, which {now}"
    return ""


def _installed_version(runtime: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(runtime)
    except PackageNotFoundError:
        return None
