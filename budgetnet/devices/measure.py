"""Measurement of a device: times of the operations of a space, calibrated and judged on whole networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from budgetnet.common.errors import BudgetnetError, InputError
from budgetnet.devices.benches import benches_of
from budgetnet.devices.cell_times import CellTimes
from budgetnet.devices.cells import Cells, cells_of, grouped_by, monotone
from budgetnet.devices.estimates import estimate
from budgetnet.devices.machine import require_quiet, this_machine
from budgetnet.devices.networks import LEAST_SHARE, Region, calibrated, time_networks, validated
from budgetnet.devices.partial import Partial
from budgetnet.devices.runtimes import Runtime
from budgetnet.model.deployed.calls import Call, Kernel, calls_of
from budgetnet.model.deployed.device_file import Anchor, DeviceFile, OperationTimes, RuntimeSettings
from budgetnet.model.deployed.times import KernelTimes, Times
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec

SAMPLED_NETWORKS = 3000
"""Networks whose operations are looked at."""
JUDGED = 40
"""Whole networks that are timed to calibrate, and as many others to judge the predictions."""
_NETWORK_ROUNDS = 3
_LEAST_SAMPLES = 10


class Progress(NamedTuple):
    """How far a measurement is."""

    step: str
    done: float
    """Share that is done."""


def measure(
    region: Region,
    runtime: Runtime,
    output: Path,
    *,
    minutes: float,
    progress: Callable[[Progress], None] = lambda _progress: None,
    judged: int = JUDGED,
    sampled: int = SAMPLED_NETWORKS,
    even_if_busy: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> DeviceFile:
    """Measure this machine, write the device's file and return it; an interrupted measurement goes on where it stopped.

    Args:
        region: networks whose operations are measured.
        runtime: what executes them.
        output: the file.
        minutes: no round over the operations begins later than this; every operation is measured once.
        progress: is told how far the measurement is.
        judged: networks to calibrate with, and again as many to judge with.
        sampled: networks whose operations are looked at.
        even_if_busy: measure also where other programs use the machine; the stored error tells how well that went.
        clock: a monotonic clock, in seconds.

    Raises:
        InputError: the machine is too busy, or there is a single network to judge with.
        OverBudgetError: no network of the space is within the region's limits.
        BudgetnetError: the runtime executes other operations than those that are known of it.
    """
    start = clock()
    region.require_feasible()
    networks = list(islice(region.networks(seed=1, least=LEAST_SHARE), 2 * judged))
    if len({spec.digest for spec in networks}) < 2:
        raise InputError("space", region.space.name, "has a single network within the limits: nothing to judge with")
    if not even_if_busy:
        require_quiet(runtime)
    progress(Progress("finding the operations of the space", 0.0))
    specs = list(islice(region.networks(seed=0), sampled))
    calls = [call for spec in specs for call in _calls(spec, runtime)]
    cells = cells_of(grouped_by(calls), block=runtime.block)
    settings = {
        "hardware": this_machine().to_mapping(),
        "runtime": (runtime.name, runtime.version, runtime.threads, runtime.batch),
        "region": (region.space.identity, *region[1:]),
        "cells": {str(kernel): (own.inputs, own.outputs) for kernel, own in cells.items()},
    }
    partial = Partial(output, settings)
    try:
        _measure_cells(cells, runtime, partial, until=start + 60 * minutes, clock=clock, progress=progress)
        if len(partial.networks) != len(networks):
            partial.networks = time_networks(
                runtime,
                networks,
                rounds=_NETWORK_ROUNDS,
                progress=lambda done: progress(
                    Progress("timing whole networks", done / (_NETWORK_ROUNDS * len(networks)))
                ),
            )
    finally:
        partial.save(now=True)
    device = _device(region, runtime, cells, partial.calls, networks, partial.networks)
    device.save(output)
    partial.remove()
    return device


def _calls(spec: ModelSpec, runtime: Runtime) -> list[Call]:
    return calls_of(lower(spec), runtime=runtime.name, block=runtime.block)


def _measure_cells(
    cells: Mapping[Kernel, Cells],
    runtime: Runtime,
    partial: Partial,
    *,
    until: float,
    clock: Callable[[], float],
    progress: Callable[[Progress], None],
) -> None:
    """Measure every cell once, then those that are not precise again and again until time is up."""
    times = CellTimes(list(benches_of(cells)), partial.calls)
    while due := (first := times.unmeasured()) or times.due(least=_LEAST_SAMPLES):
        for place, bench in enumerate(due):
            if not first and clock() >= until:
                return
            share = "first round" if first else f"{100 * times.precise_share:.0f} % precise"
            progress(Progress(f"timing operations, {share}", place / len(due)))
            try:
                times.measure(bench, runtime)
            except LookupError as error:
                raise BudgetnetError(
                    f"{runtime.name} {runtime.version} executes other operations than are known of it: "
                    f"it has no {error}"
                ) from None
            partial.save()


def _device(
    region: Region,
    runtime: Runtime,
    cells: Mapping[Kernel, Cells],
    samples: Mapping[Call, Sequence[float]],
    networks: Sequence[ModelSpec],
    seconds: Sequence[float],
) -> DeviceFile:
    """Return the file of what was measured."""
    tables = {kernel: _times(kernel, own, samples) for kernel, own in cells.items()}
    known = KernelTimes(tables)
    sums, counts, whole, judged = [], [], [], []
    for spec, measured in zip(networks, seconds, strict=True):
        times = [known.seconds(call) for call in _calls(spec, runtime)]
        found = [each for each in times if each is not None]
        # A network beyond the table cannot be predicted.
        if len(found) == len(times):
            sums.append(sum(found))
            counts.append(len(found))
            whole.append(measured)
            judged.append(spec)
    half = len(whole) // 2
    calibration = calibrated(sums[:half], counts[:half], whole[:half])
    predicted = [
        1e-6 * (calibration.constant + calibration.per_operation * count) + calibration.factor * total
        for total, count in zip(sums[half:], counts[half:], strict=True)
    ]
    order = sorted(range(half, len(whole)), key=whole.__getitem__)
    anchors = [order[len(order) * part // 6] for part in (1, 3, 5)]
    return DeviceFile.signed(
        hardware=this_machine(),
        runtime=RuntimeSettings(
            name=runtime.name,
            version=runtime.version,
            threads=runtime.threads,
            batch=runtime.batch,
            block=runtime.block,
        ),
        space=region.space.name,
        input_shape=region.input_shape,
        num_classes=region.num_classes,
        calibration=calibration,
        validation=validated(predicted, whole[half:], [spec.macs for spec in judged[half:]]),
        anchors=tuple(Anchor(spec=judged[place], microseconds=round(whole[place] * 1e6, 3)) for place in anchors),
        operations=tuple(OperationTimes.of(kernel, times) for kernel, times in tables.items()),
    )


def _times(kernel: Kernel, cells: Cells, samples: Mapping[Call, Sequence[float]]) -> Times:
    """Return the times of a kernel, made monotone in the number of channels."""
    rows: list[list[float | None]] = [[None] * max(1, len(cells.outputs)) for _ in cells.inputs]
    for row, column in cells.wanted:
        inputs = cells.inputs[row]
        outputs = cells.outputs[column] if cells.outputs else inputs
        rows[row][column] = estimate(samples[Call(kernel, inputs, outputs)]).seconds
    return Times(cells.inputs, cells.outputs, monotone(rows))
