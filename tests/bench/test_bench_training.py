"""Measurements of training: what is measured is what trains, and what is told follows from the rows."""

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
from support import TINY, Tell
from torch.optim.optimizer import register_optimizer_step_post_hook

from budgetnet.bench import hardware
from budgetnet.bench.hardware import PeakMemory, peak_macs_per_second
from budgetnet.bench.isolated import ways_apart
from budgetnet.bench.measure import Measurement
from budgetnet.bench.profile import CLASSES, OTHER, classify, fixed_seconds, profiled
from budgetnet.bench.scaling import Point, draw, network_of
from budgetnet.bench.training import Speed, TrainBenchmark, fitting_batch
from budgetnet.bench.variants import PLAIN, UNTUNED, Setting, learning, variants
from budgetnet.common import cpu
from budgetnet.common.errors import BudgetnetError, InputError
from budgetnet.model import zoo
from budgetnet.runs.recipe import Recipe
from budgetnet.training.step import Execution

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes that tests start, too: beside other tests two threads wait for each other for seconds."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def speed(variant: str, *, rate: float, memory: int | None = None) -> Speed:
    times = Measurement(128 / rate, 100 / rate, 200 / rate, 3, 1)
    return Speed(variant, "float32", 128, times, rate, 0.5, memory)


def test_each_way_is_told_with_what_follows_from_its_times(tell: Tell, tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    told = tell("bench", "train", str(tmp_path / "tiny.yaml"), "--batch", "4", "--seconds", "0.1", "--json")
    assert told.code == 0, told.err
    trained: dict[str, Any] = json.loads(told.out)
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
    assert trained["goals"] == [], "goals are for the reference"
    assert {"torch", "budgetnet"} <= trained["environment"]["packages"].keys()
    # In one precision the share of the peak is as the images a second; and three times inference's work for each image.
    shares = [row["share_of_peak"] / row["images_per_second"] for row in rows if row["precision"] == "float32"]
    assert shares == pytest.approx([shares[0]] * len(shares))


@pytest.mark.parametrize(("gain", "met"), [(1.39, False), (1.4, True)])
def test_the_goal_on_a_cpu_is_a_ratio(gain: float, met: bool) -> None:
    rows = [speed("plain loop", rate=100.0), speed("budgetnet", rate=100 * gain)]
    (goal,) = TrainBenchmark({"device": "cpu"}, zoo.get("reference"), rows).goals
    assert goal.measured == pytest.approx(gain)
    assert goal.met == met
    assert TrainBenchmark({"device": "cpu"}, zoo.get("resnet20"), rows).goals == []


def test_the_goals_on_a_gpu_are_an_epoch_a_ratio_and_memory() -> None:
    rows = [speed("plain loop", rate=4_000.0), speed("budgetnet", rate=50_000.0, memory=5 * 10**9)]
    goals = TrainBenchmark({"device": "cuda"}, zoo.get("reference"), rows).goals
    assert [goal.measured for goal in goals] == pytest.approx([12.5, 0.8, 5e9])
    assert [goal.met for goal in goals] == [False, True, False]


def test_a_measured_step_trains() -> None:
    setting = Setting(TINY, Recipe(), 8, CPU)
    with variants(setting, compiled=False) as found:
        names = [variant.name for variant in found]
        assert names[0] == PLAIN
        assert names[-2:] == [UNTUNED, "budgetnet"]
        assert len(set(names)) == len(names)
        for variant in found:
            for _ in range(20):  # more than the images make batches
                variant.step()


@contextmanager
def noting(folder: Path) -> Iterator[dict[str, Callable[[], None]]]:
    """Two ways that write down where they run; module-level, so that another process finds it."""

    def note(name: str) -> None:
        with (folder / name).open("a") as stream:
            print(os.getpid(), cpu.uses_settings(), file=stream)

    try:
        yield {"a": partial(note, "a"), "b": partial(note, "b")}
    finally:
        (folder / "ended").touch()


def test_ways_apart_run_in_one_other_process_without_the_settings(tmp_path: Path) -> None:
    with ways_apart(partial(noting, tmp_path)) as ways:
        assert list(ways) == ["a", "b"]
        ways["a"].step()
        peak = ways["b"].measured_step()
        ways["a"].step()
        assert not (tmp_path / "ended").exists()
    assert (tmp_path / "ended").exists(), "the process leaves its block before the caller goes on"
    first, again, other = [*(tmp_path / "a").read_text().splitlines(), *(tmp_path / "b").read_text().splitlines()]
    assert first == again == other
    process, settings = first.split()
    assert int(process) != os.getpid()
    assert settings == "False"
    assert cpu.uses_settings(), "here they stay on"
    assert peak is None or peak > 10**7


def test_a_process_apart_that_ends_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(BudgetnetError, match="ended before its time"),
        ways_apart(partial(noting, tmp_path / "none")) as ways,
    ):
        ways["a"].step()


def test_the_learning_rate_of_a_measured_step_is_the_recipes() -> None:
    """With none the weights stand still, so that what is measured would be no training."""
    optimisers = []
    handle = register_optimizer_step_post_hook(
        lambda optimizer, *_: optimisers.append(float(optimizer.param_groups[0]["lr"]))
    )
    try:
        learning(Setting(TINY, Recipe(learning_rate=0.25), 8, CPU), precision="float32", execution=Execution())()
    finally:
        handle.remove()
    assert optimisers == [0.25]


def test_a_batch_is_halved_until_it_fits_the_time() -> None:
    setting = Setting(TINY, Recipe(), 64, CPU)
    assert fitting_batch(setting, seconds=1e9) == 64
    assert fitting_batch(setting, seconds=1e-9) == 16


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a high-water mark")
def test_memory_is_counted_from_its_beginning() -> None:
    before = PeakMemory(CPU)
    kept = torch.ones(200 * 2**20, dtype=torch.uint8)
    peak = before.read()
    del kept
    after = PeakMemory(CPU).read()
    assert peak is not None
    assert after is not None
    assert peak - after > 150 * 2**20


def test_the_peak_is_the_faster_of_two_ways_to_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("void at::native::multi_tensor_apply_kernel<FusedSgd>", "optimiser"),
        ("aten::addmm", "matrix product"),
        ("aten::_log_softmax", "loss and metrics"),
        ("Memcpy HtoD (Pageable -> Device)", "copies and casts"),
        ("aten::gather", "gathering and augmentation"),
        ("aten::threshold_backward", "activation and sums"),
        ("something new", OTHER),
    ],
)
def test_operations_and_kernels_are_classified_by_their_names(name: str, work: str) -> None:
    assert classify(name) == work
    assert work == OTHER or work in CLASSES


def test_a_profile_adds_up() -> None:
    found = profiled(learning(Setting(TINY, Recipe(), 8, CPU), precision="float32", execution=Execution()), device=CPU)
    assert sum(share.share for share in found.shares) == pytest.approx(1)
    assert sum(share.seconds_per_step for share in found.shares) == pytest.approx(found.seconds_per_step)
    assert {"convolution", "batch norm", "optimiser"} <= {share.work for share in found.shares}
    assert [share.share for share in found.shares] == sorted((share.share for share in found.shares), reverse=True)


def test_a_profile_tells_what_a_step_of_two_images_takes(tell: Tell, tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    told = tell("bench", "profile", str(tmp_path / "tiny.yaml"), "--batch", "64", "--json")
    assert told.code == 0, told.err
    wall = json.loads(told.out)["wall"]
    assert wall["all images"]["samples"] >= 3
    assert 0 < wall["two images"]["minimum"] <= wall["all images"]["maximum"]


def test_what_grows_with_no_image_lies_on_the_line_through_two_steps() -> None:
    assert fixed_seconds(3 + 128 * 0.5, 3 + 2 * 0.5, batch_size=128) == pytest.approx(3)
    assert fixed_seconds(10.0, 0.1, batch_size=4) == 0
    assert fixed_seconds(1.0, 1.0, batch_size=2) == 1


@pytest.mark.parametrize("params", [100_000, 300_000, 1_000_000, 2_000_000, 5_000_000])
def test_the_family_has_networks_near_every_size(params: int) -> None:
    built = network_of(params, image_size=32).build()
    count = sum(parameter.numel() for parameter in built.parameters())
    assert abs(count - params) < 0.05 * params


def test_growth_is_told_point_by_point_and_drawn(tell: Tell, tmp_path: Path) -> None:
    sizes = ["--params", "0.1M,0.2M", "--batches", "2", "--images", "8,16"]
    told = tell("bench", "growth", *sizes, "--seconds", "0.01", "--plot", str(tmp_path / "growth.html"), "--json")
    assert told.code == 0, told.err
    rows = json.loads(told.out)["rows"]
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
    assert "images a second" in page
    assert "https://cdn" not in page.split("<script")[0]


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
@pytest.mark.skipif(importlib.util.find_spec("kaleido") is None, reason="needs the extra figures")
@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG")])
def test_growth_is_drawn_without_a_page(tmp_path: Path, suffix: str, start: bytes) -> None:
    points = [Point("params", 10**5, 10**6, 128, 32, speed("budgetnet", rate=10.0, memory=2**30))]
    draw(points, tmp_path / f"growth{suffix}")
    assert (tmp_path / f"growth{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["growth.gif", "growth", "missing/growth.html", "folder.svg"])
def test_a_figure_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    tell: Tell, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.svg").mkdir()
    told = tell("bench", "growth", "--plot", str(tmp_path / name))
    assert told.code == 2
    assert told.err.startswith("error: --plot")
    with pytest.raises(InputError):
        draw([], tmp_path / name)


@pytest.mark.parametrize(
    ("verb", "option", "value"),
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
def test_what_cannot_be_measured_is_one_line_and_exit_code_2(tell: Tell, verb: str, option: str, value: str) -> None:
    told = tell("bench", verb, option, value)
    assert told.code == 2
    assert option in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert told.out == ""


def test_tables_are_told_in_80_columns(tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    TINY.save(tmp_path / "tiny.yaml")
    spec = str(tmp_path / "tiny.yaml")
    for verb in (["train", spec, "--batch", "4", "--seconds", "0.1"], ["profile", spec, "--batch", "4"]):
        told = tell("bench", *verb)
        assert told.code == 0, told.err
        assert "torch" in told.out
        assert max(len(line) for line in told.out.splitlines() if line.startswith("│")) <= 80
