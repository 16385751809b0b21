"""Tests of predicted latency: interpolation, sums over networks, and the device's file."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from device_file_support import NETWORK, WIDER, measure_small, resigned
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples, specs

from budgetnet.common.errors import InputError
from budgetnet.model.deployed.calls import Call, Kernel, calls_of
from budgetnet.model.deployed.device_file import DeviceFile, OperationTimes, load_device
from budgetnet.model.deployed.latency import Latency
from budgetnet.model.deployed.times import KernelTimes, Times
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec

CONV = Kernel("conv", "blocked", 3, 1, 1, adds=False, before=(8, 8), after=(8, 8))
GRID = Times((16, 32, 64), (16, 48), [[1.0, 3.0], [2.0, 5.0], [4.0, None]])


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> DeviceFile:
    return measure_small(tmp_path_factory.mktemp("device") / "small.yaml")


@pytest.fixture
def path(device: DeviceFile, tmp_path: Path) -> Path:
    device.save(tmp_path / "device.yaml")
    return tmp_path / "device.yaml"


def test_times_between_grid_points_by_hand() -> None:
    assert GRID.at(16, 16) == 1.0
    # Half way in outputs, half way in inputs, and both.
    assert GRID.at(16, 32) == 2.0
    assert GRID.at(24, 16) == 1.5
    assert GRID.at(24, 32) == pytest.approx((1.0 + 3.0 + 2.0 + 5.0) / 4)
    assert GRID.at(48, 16) == 3.0


def test_nothing_is_extrapolated() -> None:
    assert GRID.at(8, 16) is None
    assert GRID.at(65, 16) is None
    assert GRID.at(16, 49) is None
    # A neighbour that was not measured.
    assert GRID.at(48, 17) is None
    assert GRID.at(64, 48) is None
    assert GRID.at(32, 48) == 5.0


def test_kernels_that_keep_channels_have_one_axis() -> None:
    times = Times((8, 24), (), [[1.0], [2.0]])
    assert [times.at(each, each) for each in (8, 16, 24, 25)] == [1.0, 1.5, 2.0, None]


grids = st.integers(2, 5).flatmap(
    lambda columns: st.lists(st.lists(st.floats(0.1, 10), min_size=columns, max_size=columns), min_size=2, max_size=5)
)


@given(rows=grids)
@examples(100)
def test_measured_times_are_made_monotone(rows: list[list[float]]) -> None:
    from budgetnet.devices.cells import monotone

    found: list[list[Any]] = monotone(rows)
    assert all(a <= b for row in found for a, b in pairwise(row))
    assert all(a <= b for column in zip(*found, strict=True) for a, b in pairwise(column))
    if all(a <= b for row in rows for a, b in pairwise(row)) and all(
        a <= b for column in zip(*rows, strict=True) for a, b in pairwise(column)
    ):
        assert sum(found, []) == pytest.approx(sum(rows, []))  # noqa: RUF017 - a few short rows
    # Between grid points too.
    times = Times(range(1, 1 + 4 * len(found), 4), range(1, 1 + 4 * len(found[0]), 4), found)
    for inputs in range(1, 4 * len(found) - 3):
        along = [times.at(inputs, outputs) for outputs in range(1, 4 * len(found[0]) - 2)]
        assert all(a is not None and b is not None and a <= b * (1 + 1e-12) for a, b in pairwise(along))


def test_operations_are_written_as_they_are_read() -> None:
    document = OperationTimes.of(CONV, GRID)
    assert document.operation == "conv 3x3 blocked, 8x8 to 8x8"
    assert document.microseconds[2] == "4e+06 -"
    read = document.times()
    assert read.seconds[2][1] is None
    assert read.seconds[1][1] == pytest.approx(5.0)


class Invented(KernelTimes):
    """Times that are known of every call, and differ."""

    def __init__(self) -> None:
        super().__init__({})

    def seconds(self, call: Call) -> float | None:
        return 1e-6 * (1 + sum(str(call).encode()) + call.inputs + 3 * call.outputs)


def latency(times: KernelTimes, *, block: int = 16) -> Latency:
    return Latency(
        times, runtime="onnxruntime", block=block, constant=1e-4, factor=1.5, per_call=1e-6, error=0.1, images="any"
    )


@given(spec=specs(max_blocks=3), block=st.sampled_from([1, 8, 16]))
@examples(300)
def test_time_by_parts_is_that_of_all_calls(spec: ModelSpec, block: int) -> None:
    times = Invented()
    known = latency(times, block=block)
    calls = calls_of(lower(spec), runtime="onnxruntime", block=block)
    expected = 1e-4 + 1.5 * sum(times.seconds(call) or 0 for call in calls) + 1e-6 * len(calls)
    for _ in range(2):
        assert known.seconds(spec) == pytest.approx(expected)


def test_time_of_many_widths_with_one_model() -> None:
    """Parts of one network are not taken for those of another."""
    times = Invented()
    known = latency(times)
    base: dict[str, Any] = {"blocks": 2, "input_shape": (3, 8, 8)}
    for kind in ("basic", "preact", "bottleneck"):
        for channels in ([16, 24], [24, 24], [24, 16], [20, 32]):
            for more in ({}, {"squeeze_excitation_ratio": 0.25}, {"activation": "silu"}, {"num_classes": 3}):
                # On maps of 8x8, strides 4 and 5 give 2x2.
                for strides in ([1, 2], [1, 4], [1, 5], [4, 2], [5, 2]):
                    spec = ModelSpec.resnet(channels=channels, block=kind, strides=strides, **base, **more)
                    assert known.seconds(spec) == pytest.approx(latency(times).seconds(spec))


def test_a_prediction_takes_microseconds() -> None:
    known = latency(Invented())
    spec = ModelSpec.resnet(channels=[16, 32, 64], blocks=3)
    known.seconds(spec)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(50):
            known.seconds(spec)
        best = min(best, time.perf_counter() - start)
    assert best / 50 < 50e-6


def test_a_file_predicts_its_networks(device: DeviceFile) -> None:
    predicted = device.latency.predict(NETWORK)
    wider = device.latency.predict(WIDER)
    assert 0 < predicted.seconds < 0.1
    assert 0 < wider.seconds < 0.1
    assert predicted.at_most == pytest.approx(predicted.seconds * (1 + device.validation.p95_error))
    assert " ± " in str(predicted)


def test_a_file_is_read_as_it_was_written(device: DeviceFile, path: Path) -> None:
    read = load_device(path)
    assert read == device
    assert read.latency.seconds(NETWORK) == device.latency.seconds(NETWORK)
    assert load_device(path) is read


def test_what_a_file_lacks_is_named(device: DeviceFile) -> None:
    with pytest.raises(InputError, match=r"has no time of conv 3x3.*8x8 to 8x8, .* channels, which") as error:
        device.latency.predict(NETWORK.replace(channels=[512, 1024]))
    assert "images of 1x8x8 and 10 classes" in error.value.rule
    for other in ({"input_shape": (1, 16, 16)}, {"num_classes": 7}, {"kernel_sizes": (5, 5)}):
        assert device.latency.seconds(NETWORK.replace(**other)) is None
        with pytest.raises(InputError, match="has no time of "):
            device.latency.predict(NETWORK.replace(**other))


def test_an_edited_file_is_refused(device: DeviceFile, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("networks: 4", "networks: 5"), encoding="utf-8")
    with pytest.raises(InputError, match=r"digest = .*changed after it was made"):
        load_device(path)
    path.write_text(text, encoding="utf-8")
    assert load_device(path) == device


def test_another_version_is_refused(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("schema_version: 1", "schema_version: 2", 1) + "new: field\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"schema_version = 2: must be 1: .*another version of budgetnet"):
        load_device(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("schema_version: 1\nhardware: {cpu: x", "well-formed YAML"),
        ("just text", "must contain a mapping"),
        ("schema_version: 1\n", "missing field"),
    ],
)
def test_broken_files_are_refused(path: Path, content: str, message: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_device(path)


def test_a_file_that_was_cut_short_is_refused(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for share in (0.2, 0.5, 0.9):
        path.write_text(text[: int(share * len(text))], encoding="utf-8")
        with pytest.raises(InputError):
            load_device(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"device_file = .*none\.yaml.*no such file"):
        load_device(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": "32 16"},
        {"inputs": "16 many"},
        {"microseconds": ("1 2", "3 4")},
        {"microseconds": ("1", "3 4", "5 6")},
        {"operation": "conv of any kind"},
    ],
)
def test_broken_tables_are_refused(changes: dict[str, Any]) -> None:
    document = OperationTimes.of(CONV, GRID).to_mapping()
    with pytest.raises(InputError, match="operation = "):
        OperationTimes.from_mapping({**document, **changes})


def test_digests_follow_the_content(device: DeviceFile) -> None:
    assert resigned(device) == device
    assert resigned(device, space="other").digest != device.digest


def test_prediction_loads_no_runtime(path: Path, tmp_path: Path) -> None:
    NETWORK.save(tmp_path / "network.yaml")
    code = (
        "import budgetnet as bn, sys\n"
        "from budgetnet.model.deployed.device_file import load_device\n"
        f"spec = bn.ModelSpec.load({str(tmp_path / 'network.yaml')!r})\n"
        f"assert load_device({str(path)!r}).latency.predict(spec).seconds > 0\n"
        "assert not {'torch', 'onnxruntime', 'onnx', 'numpy', 'optuna'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
