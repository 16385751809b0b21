"""`bench train`, `growth` and `profile`, and what they measure."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support import TINY, RunCommand
from torch.optim.optimizer import register_optimizer_step_post_hook

from budgetnet.bench import hardware
from budgetnet.bench.hardware import PeakMemory, peak_macs_per_second
from budgetnet.bench.isolated import separate_process
from budgetnet.bench.measure import Measurement
from budgetnet.bench.profile import CLASSES, OTHER, classify, fixed_seconds, profile_steps
from budgetnet.bench.scaling import Point, network_of, scaling_figure
from budgetnet.bench.training import Speed, TrainBenchmark, fitting_batch
from budgetnet.bench.variants import PLAIN, UNTUNED, Setting, training_step, variants
from budgetnet.common import cpu
from budgetnet.common.errors import BudgetnetError
from budgetnet.model import zoo
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import describe_environment
from budgetnet.training.step import Execution
from budgetnet.visualization.figures import write_figure

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use one thread in child processes too: threads of parallel tests slow each other down by seconds."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def speed(variant: str, *, rate: float, memory: int | None = None) -> Speed:
    times = Measurement(128 / rate, 100 / rate, 200 / rate, 3, 1)
    return Speed(variant, "float32", 128, times, rate, 0.5, memory)


def test_train_benchmark_rows_are_consistent(tell: RunCommand, tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    answer = tell("bench", "train", str(tmp_path / "tiny.yaml"), "--batch", "4", "--seconds", "0.1", "--json")
    assert answer.code == 0, answer.err
    trained: dict[str, Any] = json.loads(answer.out)
    assert trained["benchmark"] == "train"
    assert trained["network"]["params"] == TINY.params
    rows = trained["rows"]
    assert rows[0]["variant"] == "plain loop"
    assert rows[-1]["variant"] == "budgetnet"
    rates = {row["variant"]: row["images_per_second"] for row in rows}
    assert trained["settings_gain"] == pytest.approx(rates["budgetnet"] / rates["budgetnet, untuned"])
    for row in rows:
        times = row["seconds_per_step"]
        assert 0 < times["minimum"] <= times["median"] <= times["maximum"]
        assert times["samples"] >= 3
        assert row["images_per_second"] == pytest.approx(4 / times["median"])
        assert 0 < row["share_of_peak"] < 1
    expected = {row["variant"]: row["images_per_second"] / rows[0]["images_per_second"] for row in rows[1:]}
    assert trained["ratios"] == pytest.approx(expected)
    assert trained["goals"] == [], "goals apply to the reference only"
    assert {"torch", "budgetnet"} <= trained["environment"]["packages"].keys()
    # In one precision the share of the peak is proportional to the images per second.
    shares = [row["share_of_peak"] / row["images_per_second"] for row in rows if row["precision"] == "float32"]
    assert shares == pytest.approx([shares[0]] * len(shares))


@pytest.mark.parametrize(("gain", "met"), [(1.39, False), (1.4, True)])
def test_cpu_goal_is_a_ratio(gain: float, met: bool) -> None:
    rows = [speed("plain loop", rate=100.0), speed("budgetnet", rate=100 * gain)]
    (goal,) = TrainBenchmark({"device": "cpu"}, zoo.get("reference"), rows).goals
    assert goal.measured == pytest.approx(gain)
    assert goal.met == met
    assert TrainBenchmark({"device": "cpu"}, zoo.get("resnet20"), rows).goals == []


def test_gpu_goals_are_ratio_epoch_time_and_memory() -> None:
    rows = [speed("plain loop", rate=4_000.0), speed("budgetnet", rate=50_000.0, memory=5 * 10**9)]
    goals = TrainBenchmark({"device": "cuda"}, zoo.get("reference"), rows).goals
    assert [goal.measured for goal in goals] == pytest.approx([12.5, 0.8, 5e9])
    assert [goal.met for goal in goals] == [False, True, False]


@pytest.mark.slow
def test_every_variant_runs_for_several_epochs() -> None:
    setting = Setting(TINY, Recipe(), 8, CPU)
    with variants(setting, compiled=False) as found:
        names = [variant.name for variant in found]
        assert names[0] == PLAIN
        assert names[-2:] == [UNTUNED, "budgetnet"]
        assert len(set(names)) == len(names)
        for variant in found:
            for _ in range(20):  # more than one epoch
                variant.step()


@contextmanager
def recording_steps(folder: Path) -> Iterator[dict[str, Callable[[], None]]]:
    """Create two steps that record the process they run in; at module level, so that it can be pickled."""

    def record(name: str) -> None:
        with (folder / name).open("a") as stream:
            print(os.getpid(), cpu.uses_settings(), file=stream)

    try:
        yield {"a": partial(record, "a"), "b": partial(record, "b")}
    finally:
        (folder / "ended").touch()


def test_separate_process_runs_steps_without_cpu_settings(tmp_path: Path) -> None:
    with separate_process(partial(recording_steps, tmp_path)) as steps:
        assert list(steps) == ["a", "b"]
        steps["a"].step()
        peak = steps["b"].measured_step()
        steps["a"].step()
        assert not (tmp_path / "ended").exists()
    assert (tmp_path / "ended").exists(), "the process has exited when the block ends"
    first, again, other = [*(tmp_path / "a").read_text().splitlines(), *(tmp_path / "b").read_text().splitlines()]
    assert first == again == other
    process, settings = first.split()
    assert int(process) != os.getpid()
    assert settings == "False"
    assert cpu.uses_settings(), "unchanged in this process"
    assert peak is None or peak > 10**7


def test_separate_process_that_exits_early_raises(tmp_path: Path) -> None:
    with (
        pytest.raises(BudgetnetError, match="exited early"),
        separate_process(partial(recording_steps, tmp_path / "none")) as steps,
    ):
        steps["a"].step()


def test_measured_steps_use_the_recipes_learning_rate() -> None:
    learning_rates = []
    handle = register_optimizer_step_post_hook(
        lambda optimizer, *_: learning_rates.append(float(optimizer.param_groups[0]["lr"]))
    )
    try:
        training_step(Setting(TINY, Recipe(learning_rate=0.25), 8, CPU), precision="float32", execution=Execution())()
    finally:
        handle.remove()
    assert learning_rates == [0.25]


def test_batch_size_is_halved_until_it_fits_the_time() -> None:
    setting = Setting(TINY, Recipe(), 64, CPU)
    assert fitting_batch(setting, seconds=1e9) == 64
    assert fitting_batch(setting, seconds=1e-9) == 16


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset the peak RSS")
def test_peak_memory_starts_at_its_creation() -> None:
    before = PeakMemory(CPU)
    allocated = torch.ones(200 * 2**20, dtype=torch.uint8)
    peak = before.read()
    del allocated
    after = PeakMemory(CPU).read()
    assert peak is not None
    assert after is not None
    assert peak - after > 150 * 2**20


def test_peak_is_the_faster_of_product_and_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([4.0, 0.5])
    products: list[torch.Tensor] = []

    def timed(product: Callable[[], torch.Tensor], _: torch.device) -> float:
        products.append(product())
        return next(times)

    monkeypatch.setattr(hardware, "_seconds", timed)
    assert peak_macs_per_second(CPU, torch.float32) == 2048**3 / 0.5
    matrix, maps = products
    torch.testing.assert_close(maps.permute(0, 2, 3, 1).reshape(matrix.shape), matrix, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("aten::convolution_backward", "convolution"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "convolution"),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float>", "batch norm"),
        ("aten::native_batch_norm_backward", "batch norm"),
        ("aten::_fused_sgd_", "optimiser"),
        ("aten::_fused_adamw_", "optimiser"),
        ("void at::native::multi_tensor_apply_kernel<FusedSgd>", "optimiser"),
        ("aten::addmm", "matrix product"),
        ("aten::_log_softmax", "loss and metrics"),
        ("Memcpy HtoD (Pageable -> Device)", "copies and casts"),
        ("aten::gather", "gathering and augmentation"),
        ("aten::threshold_backward", "activation and sums"),
        ("something new", OTHER),
    ],
)
def test_operations_are_classified_by_name(name: str, work: str) -> None:
    assert classify(name) == work
    assert work == OTHER or work in CLASSES


def test_profile_shares_sum_to_one() -> None:
    found = profile_steps(
        training_step(Setting(TINY, Recipe(), 8, CPU), precision="float32", execution=Execution()), device=CPU
    )
    assert sum(share.share for share in found.shares) == pytest.approx(1)
    assert sum(share.seconds_per_step for share in found.shares) == pytest.approx(found.seconds_per_step)
    assert {"convolution", "batch norm", "optimiser"} <= {share.work for share in found.shares}
    assert [share.share for share in found.shares] == sorted((share.share for share in found.shares), reverse=True)


def test_profile_reports_wall_times(tell: RunCommand, tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    answer = tell("bench", "profile", str(tmp_path / "tiny.yaml"), "--batch", "64", "--json")
    assert answer.code == 0, answer.err
    wall = json.loads(answer.out)["wall"]
    assert wall["all images"]["samples"] >= 3
    assert 0 < wall["two images"]["minimum"] <= wall["all images"]["maximum"]


def test_fixed_seconds_extrapolates_to_zero_images() -> None:
    assert fixed_seconds(3 + 128 * 0.5, 3 + 2 * 0.5, batch_size=128) == pytest.approx(3)
    assert fixed_seconds(10.0, 0.1, batch_size=4) == 0
    assert fixed_seconds(1.0, 1.0, batch_size=2) == 1


@pytest.mark.parametrize("params", [100_000, 300_000, 1_000_000, 2_000_000, 5_000_000])
def test_network_of_is_close_to_the_requested_size(params: int) -> None:
    built = network_of(params, image_size=32).build()
    count = sum(parameter.numel() for parameter in built.parameters())
    assert abs(count - params) < 0.05 * params


@pytest.mark.slow
def test_growth_reports_every_point_and_plots(tell: RunCommand, tmp_path: Path) -> None:
    sizes = ["--params", "0.1M,0.2M", "--batches", "2", "--images", "8,16"]
    answer = tell("bench", "growth", *sizes, "--seconds", "0.01", "--plot", str(tmp_path / "growth.html"), "--json")
    assert answer.code == 0, answer.err
    rows = json.loads(answer.out)["rows"]
    assert [(row["axis"], row["batch_size"], row["image_size"]) for row in rows] == [
        ("params", 128, 32),
        ("params", 128, 32),
        ("batch_size", 2, 32),
        ("image_size", 128, 8),
        ("image_size", 128, 16),
    ]
    for row in rows:
        spec = network_of(row["params"], image_size=row["image_size"])
        assert (row["params"], row["macs"]) == (spec.params, spec.macs)
        times = row["speed"]["seconds_per_step"]
        assert row["speed"]["images_per_second"] == pytest.approx(row["batch_size"] / times["median"])
    assert rows[3]["params"] == rows[4]["params"]
    page = (tmp_path / "growth.html").read_text(encoding="utf-8")
    assert "images per second" in page
    assert "https://cdn" not in page.split("<script")[0]


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
@pytest.mark.skipif(importlib.util.find_spec("kaleido") is None, reason="needs the extra figures")
def test_growth_plot_as_image(tmp_path: Path) -> None:
    points = [Point("params", 10**5, 10**6, 128, 32, speed("budgetnet", rate=10.0, memory=2**30))]
    write_figure(scaling_figure(points), tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_bytes().startswith(b"<svg")


@pytest.mark.parametrize("name", ["growth.gif", "growth", "missing/growth.html", "folder.svg"])
def test_invalid_plot_path_is_rejected_before_measuring(tell: RunCommand, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    answer = tell("bench", "growth", "--plot", str(tmp_path / name))
    assert answer.code == 2
    assert answer.err.startswith("error: --plot")


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("train", "--batch", "1"),
        ("train", "--batch", "x"),
        ("train", "--seconds", "0"),
        ("train", "--seconds", "nan"),
        ("train", "--device", "tpu"),
        ("profile", "--batch", "0"),
        ("growth", "--batches", "64,1"),
        ("growth", "--images", "4"),
        ("growth", "--params", "1M,20M"),
        ("growth", "--params", "1M,"),
        ("growth", "--seconds", "-1"),
    ],
)
def test_invalid_options_are_one_line_and_exit_code_2(tell: RunCommand, command: str, option: str, value: str) -> None:
    answer = tell("bench", command, option, value)
    assert answer.code == 2
    assert option in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert answer.out == ""


@pytest.mark.parametrize("size", ["10M", "19k"])
def test_growth_refuses_sizes_that_no_network_of_its_family_has(tell: RunCommand, size: str) -> None:
    built = [network_of(params, image_size=32).build() for params in (1, 10**9)]
    smallest, largest = (sum(each.numel() for each in network.parameters()) for network in built)
    answer = tell("bench", "growth", "--params", f"0.1M,{size}", "--device", "cpu")
    assert (answer.code, answer.out) == (2, "")
    asked = {"10M": 10_000_000, "19k": 19_000}[size]
    assert answer.err == f"error: --params = {asked}: must be from {smallest:,} to {largest:,}\n"


def test_tables_have_at_most_80_columns(tell: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    TINY.save(tmp_path / "tiny.yaml")
    spec = str(tmp_path / "tiny.yaml")
    # As on a fast GPU, with the longest of the names of `variants`.
    rates = {PLAIN: 4_000.0, "budgetnet, no CUDA graph": 12_345.6, "budgetnet": 50_000.0}
    rows = [speed(name, rate=rate, memory=5 * 10**9) for name, rate in rates.items()]
    measured = TrainBenchmark(describe_environment(CPU), TINY, rows)
    monkeypatch.setattr("budgetnet.bench.training.run", lambda *_, **__: measured)
    for arguments in (["train", spec, "--batch", "4", "--seconds", "0.1"], ["profile", spec, "--batch", "4"]):
        answer = tell("bench", *arguments)
        assert answer.code == 0, answer.err
        assert "torch" in answer.out
        assert max(len(line) for line in answer.out.splitlines() if line.startswith("│")) <= 80
