"""Tests of measuring and checking a device, on this machine and with a few operations."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
from device_file_support import NETWORK, REGION, WIDER, measure_small, resigned
from support import RunCommand

from budgetnet.common.errors import InputError
from budgetnet.devices.benches import Bench, benches_of, covered
from budgetnet.devices.cells import cells_of, grouped_by
from budgetnet.devices.check import check
from budgetnet.devices.estimates import estimate
from budgetnet.devices.machine import obstacle, require_quiet, spread, this_machine
from budgetnet.devices.measure import Progress
from budgetnet.devices.networks import calibrated, validated
from budgetnet.devices.onnxruntime_timing import OnnxRuntime
from budgetnet.devices.partial import Partial
from budgetnet.model.deployed.calls import Call, Kernel, calls_of
from budgetnet.model.deployed.device_file import DeviceFile, Hardware, load_device
from budgetnet.model.lowering import lower

RUNTIME = OnnxRuntime(threads=1, batch=1)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> DeviceFile:
    return measure_small(tmp_path_factory.mktemp("device") / "small.yaml")


def save(device: DeviceFile, folder: Path) -> Path:
    device.save(folder / "device.yaml")
    return folder / "device.yaml"


def test_a_measured_file_knows_its_device(device: DeviceFile) -> None:
    assert device.hardware == this_machine()
    assert device.runtime.name == "onnxruntime"
    assert device.runtime.version == RUNTIME.version
    assert device.runtime.block == RUNTIME.block
    assert device.validation.networks == 4
    assert len(device.anchors) == 3
    assert obstacle(device) == ""


def test_all_sampled_networks_can_be_predicted(device: DeviceFile) -> None:
    networks = [spec for spec, _ in zip(REGION.networks(seed=0), range(40), strict=False)]
    assert all(device.latency.seconds(spec) is not None for spec in networks)
    assert device.latency.seconds(NETWORK) is not None


def test_every_cell_is_in_a_graph_and_executed() -> None:
    networks = [spec for spec, _ in zip(REGION.networks(seed=0), range(20), strict=False)]
    calls = [call for spec in networks for call in calls_of(lower(spec), runtime="onnxruntime", block=RUNTIME.block)]
    cells = cells_of(grouped_by(calls), block=RUNTIME.block)
    benches = list(benches_of(cells))
    assert len(covered(benches)) == sum(len(own.wanted) for own in cells.values())
    for bench in benches:
        found = RUNTIME.time_calls(bench.graph, bench.calls, runs=2)
        assert set(found) == set(bench.calls)
        assert all(len(times) >= 2 and min(times) >= 0 for times in found.values())


def conv(size: int, side: int, *, layout: str = "plain", stride: int = 2, groups: int = 1) -> Kernel:
    """A convolution of a square map of a side, in pixels."""
    after = (side // stride, side // stride)
    return Kernel("conv", layout, size, stride, groups, adds=False, before=(side, side), after=after)


def require_cells_around(calls: Sequence[Call], *, block: int) -> None:
    """Require that each call is at a cell, or between cells, that are measured."""
    cells = cells_of(calls, block=block)
    for kernel, *channels in calls:
        own = cells[kernel]
        places = []
        for axis, value in zip((own.inputs, own.outputs), channels, strict=True):
            if axis:
                below = max(place for place, each in enumerate(axis) if each <= value)
                above = min(place for place, each in enumerate(axis) if each >= value)
                places.append({below, above})
            else:
                places.append({0})
        assert own.wanted.issuperset(product(*places))


def test_sizes_of_kernels_that_no_sampled_network_could_afford_are_no_failure() -> None:
    # With 30 channels, 49 weights for each pair are more than the nine of a convolution that was sampled there.
    sampled = [Call(conv(3, 16), 30, 30), Call(conv(7, 4), 30, 30)]
    cells = cells_of(sampled, block=16)
    added = cells[conv(7, 16)]
    assert (added.inputs, added.outputs, added.wanted) == ((30,), (30,), frozenset())
    require_cells_around(sampled, block=16)


@pytest.mark.parametrize("block", [1, 8, 16])
@pytest.mark.parametrize("blocks", [255, 256, 257, 290, 600])
def test_the_widest_networks_are_covered(block: int, blocks: int) -> None:
    layout = "blocked" if block > 1 else "plain"
    wide = blocks * block
    calls = [
        Call(conv(1, 8, layout=layout, stride=1), channels, outputs)
        for channels, outputs in ((block, block), (wide, block), (wide, wide))
    ]
    calls += [Call(kernel._replace(kind="relu"), outputs, outputs) for kernel, _, outputs in calls]
    require_cells_around(calls, block=block)


@pytest.mark.parametrize("block", [1, 8, 16])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("width", [4_094, 4_098, 4_110, 4_118, 9_998])
def test_the_widest_groups_outside_blocks_are_covered_outside_blocks(block: int, groups: int, width: int) -> None:
    kernels = [conv(3, 8, groups=groups), Kernel("max-pool", "plain", 2, 2, 1, False, (8, 8), (4, 4))]
    calls = [Call(kernel, groups * each, groups * each) for kernel in kernels for each in (2, width)]
    require_cells_around(calls, block=block)
    cells = cells_of(calls, block=block)
    if block > 1:
        # The runtime would compute these in blocks.
        unit = 4 if groups == 1 else block
        assert all(each // groups % unit for each in cells[kernels[0]].inputs)
        assert all(each % block for each in cells[kernels[1]].inputs)


@pytest.mark.parametrize("widest", [3, 7])
def test_what_reads_less_than_a_block_is_timed_with_less_than_a_block(widest: int) -> None:
    calls = [Call(conv(1, 8, layout="plain-to-blocked", stride=1), each, 64) for each in (1, widest)]
    require_cells_around(calls, block=8)
    (cells,) = cells_of(calls, block=8).values()
    assert max(cells.inputs) < 8


def test_grouped_convolutions_are_tabled_by_the_fewer_choices() -> None:
    def grouped(channels: int, groups: int) -> Call:
        kernel = Kernel("conv", "plain", 3, 1, groups, adds=False, before=(4, 4), after=(4, 4))
        return Call(kernel, channels, channels)

    by_width = grouped_by([grouped(16, 2), grouped(32, 4), grouped(64, 8)])
    assert {call.kernel.kind for call in by_width} == {"grouped"}
    assert {call.kernel.groups for call in by_width} == {8}
    by_number = grouped_by([grouped(16, 2), grouped(32, 2), grouped(64, 2)])
    assert {call.kernel.groups for call in by_number} == {2}
    assert {call.kernel.kind for call in by_number} == {"conv"}


def test_other_load_does_not_move_an_estimate() -> None:
    quiet = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01]
    assert estimate(quiet).seconds == pytest.approx(0.9925)
    assert estimate([*quiet[:6], 9.0, 30.0]).seconds == pytest.approx(0.9925)
    assert estimate(quiet * 9).precise
    assert not estimate([1.0]).precise
    assert not estimate([1.0, 2.0, 3.0, 4.0]).precise


def test_calibration_finds_the_line_and_validation_its_error() -> None:
    sums, calls = [1e-3, 2e-3, 5e-3, 3e-3] * 5, [10, 30, 20, 60, 35] * 4
    seconds = [1e-4 + 1.25 * total + 2e-6 * count for total, count in zip(sums, calls, strict=True)]
    # One that took far longer has no say.
    seconds[7] *= 3
    found = calibrated(sums, calls, seconds)
    assert (found.constant, found.factor, found.per_operation) == pytest.approx((100, 1.25, 2), rel=0.05)
    assert calibrated([1e-3, 2e-3, 1e-3], [1, 2, 3], [2e-3, 4e-3, 9e-3]).factor == 2
    validation = validated([1.0, 2.08, 3.6, 4.0], [1.0, 2.0, 3.0, 4.0], [1, 2, 4, 3])
    assert validation.worst_error == validation.p95_error == pytest.approx(0.2)
    assert validation.median_error == pytest.approx(0.02)
    assert (validation.within_5_percent, validation.within_10_percent) == (0.75, 0.75)
    # One of six pairs is in another order.
    assert validation.kendall_tau_macs == pytest.approx(4 / 6)
    assert validation.kendall_tau == 1


def test_an_interrupted_measurement_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    steps = 0

    def interrupt(progress: Progress) -> None:
        nonlocal steps
        steps += progress.step.startswith("timing operations")
        if steps == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_small(path, progress=interrupt)
    (left,) = tmp_path.iterdir()
    assert not path.exists()
    kept = {
        Call(Kernel.parse(name), inputs, outputs) for name, inputs, outputs, _ in json.loads(left.read_text())["calls"]
    }
    assert kept
    again: list[Progress] = []
    measure_small(path, progress=again.append)
    assert [each.name for each in tmp_path.iterdir()] == ["device.yaml"]
    # What was timed before is not timed again in the first round, however precise it is.
    first = [each for each in again if "first round" in each.step]
    assert len(first) == sum(any(call not in kept for call in bench.calls) for bench in _benches())


def _benches() -> list[Bench]:
    networks = [spec for spec, _ in zip(REGION.networks(seed=0), range(40), strict=False)]
    calls = [call for spec in networks for call in calls_of(lower(spec), runtime="onnxruntime", block=RUNTIME.block)]
    return list(benches_of(cells_of(grouped_by(calls), block=RUNTIME.block)))


def test_samples_with_other_settings_are_not_used(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "device.yaml", {"threads": 1})
    kernel = Kernel("conv", "plain", 3, 1, 1, adds=True, before=(4, 4), after=(4, 4))
    partial.calls[Call(kernel, 8, 16)] = [1e-3, 2e-3]
    partial.save(now=True)
    assert Partial(tmp_path / "device.yaml", {"threads": 1}).calls == partial.calls
    assert not Partial(tmp_path / "device.yaml", {"threads": 2}).resumed
    partial.path.write_text('{"key": ', encoding="utf-8")
    assert not Partial(tmp_path / "device.yaml", {"threads": 1}).resumed


class Unsteady:
    """A clock that sometimes stands still, as one does on a busy machine."""

    def __init__(self, *, slow: int) -> None:
        self._ticks, self._slow = 0, slow
        self._now = 0.0

    def __call__(self) -> float:
        self._ticks += 1
        self._now += 2.0 if self._ticks % self._slow == 0 else 1.0
        return self._now


def test_a_busy_machine_is_refused() -> None:
    assert spread(RUNTIME, clock=Unsteady(slow=10**9)) == pytest.approx(0)
    require_quiet(RUNTIME, clock=Unsteady(slow=10**9))
    # Every fifth run takes twice as long.
    assert spread(RUNTIME, clock=Unsteady(slow=10)) == pytest.approx(1)
    with pytest.raises(InputError, match=r"too busy to measure: a fixed computation varies by 100 %"):
        require_quiet(RUNTIME, clock=Unsteady(slow=10))


def test_a_file_of_another_machine_predicts_but_is_not_checked(device: DeviceFile, tmp_path: Path) -> None:
    elsewhere = Hardware(cpu="another", machine="aarch64", system="Linux", cores=4)
    path = save(resigned(device, hardware=elsewhere), tmp_path)
    assert load_device(path).latency.seconds(NETWORK) == device.latency.seconds(NETWORK)
    with pytest.raises(InputError, match=r"cannot be checked here: it was made on another machine \(another, aarch64"):
        check(path, even_if_busy=True)


def test_a_file_of_another_version_of_the_runtime_is_not_checked(device: DeviceFile, tmp_path: Path) -> None:
    older = device.runtime.model_copy(update={"version": "1.0.0"})
    path = save(resigned(device, runtime=older), tmp_path)
    with pytest.raises(InputError, match=rf"made with onnxruntime 1\.0\.0, which is {RUNTIME.version} here"):
        check(path, even_if_busy=True)


def test_the_suffix_of_a_build_is_no_other_version(device: DeviceFile) -> None:
    # torch names itself 2.15.0+cu132, and its package 2.15.0.
    built = device.runtime.model_copy(update={"version": f"{RUNTIME.version}+cu132"})
    assert obstacle(device.model_copy(update={"runtime": built})) == ""


def test_anchors_that_moved_are_refused(device: DeviceFile, tmp_path: Path) -> None:
    faster = tuple(anchor.model_copy(update={"microseconds": anchor.microseconds / 9}) for anchor in device.anchors)
    path = save(resigned(device, anchors=faster), tmp_path)
    with pytest.raises(InputError, match=r" % more time than it took, of which 5 % are allowed; measure"):
        check(path, even_if_busy=True)


def test_torch_is_measured_too(tmp_path: Path) -> None:
    device = measure_small(tmp_path / "torch.yaml", runtime="torch")
    assert device.runtime.name == "torch"
    assert device.runtime.block == 1
    seconds = device.latency.seconds(NETWORK)
    wider = device.latency.seconds(WIDER)
    assert seconds is not None
    assert wider is not None
    assert 0 < seconds < wider


def test_commands_show_and_refuse_files(device: DeviceFile, tmp_path: Path, tell: RunCommand) -> None:
    path = save(device, tmp_path)
    shown = tell("device", "show", str(path))
    assert shown.code == 0
    assert "onnxruntime" in shown.out
    assert "for 95 % of 4 networks" in shown.out
    as_json = tell("device", "show", str(path), "--json")
    assert DeviceFile.from_mapping(json.loads(as_json.out)) == device
    missing = tell("device", "check", str(tmp_path / "none.yaml"))
    assert missing.code == 2
    assert "no such file" in missing.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runtime", "tflite"], "--runtime = 'tflite': must be onnxruntime or torch"),
        (["--threads", "0"], "--threads = '0'"),
        (["--threads", "1000000"], "threads = 1000000: must be at most "),
        (["--batch", "many"], "--batch = 'many'"),
        (["--batch", "4097"], "batch = 4097: must be at most 4,096"),
        (["--space", "none"], "no such space"),
        (["--minutes", "0"], "--minutes = 0.0"),
        (["--max-params", "0"], "--max-params = '0'"),
    ],
)
def test_measuring_refuses_invalid_options(options: list[str], message: str, tmp_path: Path, tell: RunCommand) -> None:
    done = tell("device", "measure", "-o", str(tmp_path / "device.yaml"), *options)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_limits_that_leave_no_network_or_one_are_refused_at_once(tmp_path: Path, tell: RunCommand) -> None:
    done = tell("device", "measure", "-o", str(tmp_path / "device.yaml"), "--max-params", "100")
    assert (done.code, done.out) == (3, "")
    assert "no network of the space fits the budget; the smallest, " in done.err
    smallest = REGION.space.narrowest.smallest(input_shape=(1, 8, 8), num_classes=10, measure="params")
    single = REGION._replace(max_params=smallest.params)
    with pytest.raises(InputError, match=r"^space = 'small': has a single network within the limits"):
        measure_small(tmp_path / "device.yaml", region=single)
    assert not list(tmp_path.iterdir())


def test_a_runtime_that_is_not_installed_is_named(
    tmp_path: Path, tell: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = tell("device", "measure", "-o", str(tmp_path / "device.yaml"))
    assert done.code == 2
    assert "runtime = 'onnxruntime': needs onnxruntime, not installed; to install: pip install" in done.err
