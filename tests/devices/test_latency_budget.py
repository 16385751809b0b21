"""Tests of limits of the latency: verdicts, fitted networks, searches, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from device_file_support import IMAGE, NETWORK, REGION, SMALL_SPACE, WIDER, measure_small, resigned
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from support import RunCommand, tiny_recipe, write_space

import budgetnet as bn
from budgetnet.common.errors import InputError, OverBudgetError, RecordError
from budgetnet.common.files import write_yaml
from budgetnet.common.latencies import exact_latency, parse_latency, short_latency
from budgetnet.data import DataSet
from budgetnet.model.budget import Budget
from budgetnet.model.deployed.device_file import DeviceFile, Hardware, Validation
from budgetnet.model.deployed.limits import UNKNOWN_MS
from budgetnet.study.space.fitting import fit
from budgetnet.visualization.dashboard.candidates import Candidate
from budgetnet.visualization.dashboard.notes import budget_table, trial_note
from budgetnet.visualization.report.rejected import rejections

VALIDATION = Validation(
    networks=20,
    median_error=0.02,
    p95_error=0.1,
    worst_error=0.12,
    within_5_percent=0.8,
    within_10_percent=0.95,
    kendall_tau=0.99,
    kendall_tau_macs=0.8,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose times and error are those of a measurement, whatever else the machine did."""
    folder = tmp_path_factory.mktemp("device")
    device = measure_small(folder / "measured.yaml")
    resigned(device, validation=VALIDATION).save(folder / "device.yaml")
    return folder / "device.yaml"


@pytest.fixture(scope="module")
def device(path: Path) -> DeviceFile:
    return DeviceFile.load(path)


def predicted_ms(device: DeviceFile, spec: bn.ModelSpec = NETWORK) -> float:
    return 1e3 * device.latency.predict(spec).seconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("2ms", 2.0), ("2", 2.0), ("0.5ms", 0.5), ("250 us", 0.25), ("1s", 1e3), (3, 3.0), ("5e-05ms", 5e-5)],
)
def test_latencies_are_read(text: object, milliseconds: float) -> None:
    assert parse_latency(text, field="") == pytest.approx(milliseconds)
    assert parse_latency(exact_latency(milliseconds), field="") == milliseconds


@examples(300)
@given(st.floats(0, 1e6, exclude_min=True) | st.floats(0, 1e-4, exclude_min=True) | st.integers(1, 10**6).map(float))
def test_every_latency_is_read_as_it_is_written(milliseconds: float) -> None:
    assert parse_latency(exact_latency(milliseconds), field="") == milliseconds


@pytest.mark.parametrize(
    "value", ["", "0", "-1ms", "2 minutes", "nan", True, None, float("inf"), "1e400", "1e-400", "e3", 1e9]
)
def test_other_latencies_are_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"--max-latency = .*: must be a time above 0 such as 2ms"):
        parse_latency(value, field="--max-latency")


def test_latencies_are_written_short() -> None:
    assert [short_latency(each) for each in (2, 0.03125, 123.4, 1234, -0.5)] == [
        "2.00 ms",
        "0.0312 ms",
        "123 ms",
        "1,234 ms",
        "-0.500 ms",
    ]


def test_a_verdict_compares_the_upper_end_of_the_prediction(device: DeviceFile, path: Path) -> None:
    needed = 1.1 * predicted_ms(device)
    assert bn.check(NETWORK, max_latency_ms=1.001 * needed, device_file=path).fits
    verdict = bn.check(NETWORK, max_latency_ms=0.999 * needed, device_file=path)
    assert not verdict.fits
    (limit,) = verdict.limits
    assert limit.used == pytest.approx(needed)
    assert limit.headroom == pytest.approx(-0.001 * needed)
    assert f"latency predicted as {device.latency.predict(NETWORK)} on " in verdict.note
    mapping = verdict.to_mapping()
    assert mapping["latency_ms"] == pytest.approx(needed)
    assert mapping["predicted_ms"] == pytest.approx(predicted_ms(device))
    assert mapping["prediction_error"] == 0.1


def test_what_is_fitted_is_within_the_limit(device: DeviceFile, path: Path) -> None:
    space = REGION.space
    least, most = (predicted_ms(device, spec) for spec in sorted((NETWORK, WIDER), key=device.latency.predict))
    budget = Budget(max_latency_ms=1.1 * (least + most) / 2, device_file=str(path))
    for stages in (1, 2):
        params: dict[str, Any] = {
            "stages": stages,
            "full_size_stages": 1,
            "block": "basic",
            "first_kernel_size": 3,
            "second_kernel_size": 3,
            "squeeze_excitation_ratio": 0.0,
            "groups": 1,
            "shortcut": "projection",
            **{f"blocks_{number}": 1 for number in (1, 2)},
            "growth_2": 2.0,
        }
        spec = fit(space, params, budget=budget, sizing="fit", **IMAGE)
        assert budget.admits(spec)
        assert device.latency.seconds(spec) is not None


def test_networks_beyond_the_file_are_over_budget_but_named_where_asked_for(path: Path) -> None:
    huge = NETWORK.replace(channels=[512, 1024])
    budget = Budget(max_latency_ms=1e5, device_file=str(path))
    assert not budget.admits(huge)
    assert budget.needs(huge) == {"latency_ms": UNKNOWN_MS}
    assert "over budget, unknown of 100,000 ms latency" in repr(budget.check(huge))
    with pytest.raises(InputError, match=r"device_file = .*device\.yaml': has no time of conv "):
        budget.check(huge).require()
    with pytest.raises(InputError, match=r"device_file = .*device\.yaml': has no time of conv "):
        bn.check(huge, max_latency_ms=1e5, device_file=path)


def test_an_ablation_does_not_call_an_unknown_latency_a_number(path: Path, tmp_path: Path, tell: RunCommand) -> None:
    study = {
        "spec": NETWORK.to_mapping(),
        "recipe": tiny_recipe(epochs=1).to_mapping(),
        "factors": {"spec.activation": ["relu", "silu"]},
        "budget": {"max_params": None, "max_latency_ms": 1e5, "device_file": str(path)},
    }
    write_yaml(tmp_path / "study.yaml", study)
    command = ["ablate", str(tmp_path / "study.yaml"), "--data", "digits", "--out", str(tmp_path / "runs")]
    rows = json.loads(tell(*command, "--list", "--json").out)["rows"]
    assert "the device's file lacks one of its operations" in rows[-1]["remark"]
    write_yaml(tmp_path / "study.yaml", {**study, "spec": NETWORK.replace(activation="silu").to_mapping()})
    refused = tell(*command)
    assert (refused.code, refused.out) == (2, "")
    assert "has no time of " in refused.err
    assert len(refused.err.splitlines()) == 1


def test_shares_of_a_latency_are_not_rounded(path: Path) -> None:
    budget = Budget(max_latency_ms=0.25, max_params=1001, device_file=str(path)).scaled(0.5)
    assert (budget.max_latency_ms, budget.max_params) == (0.125, 500)


def test_digests_of_other_budgets_are_those_of_before(path: Path) -> None:
    assert set(Budget(max_params=5).to_mapping()) == {"max_params", "max_macs", "max_activations"}
    assert Budget(max_latency_ms="2ms", device_file=path).to_mapping()["max_latency_ms"] == 2.0


def save(spec: bn.ModelSpec, folder: Path) -> str:
    spec.save(folder / "network.yaml")
    return str(folder / "network.yaml")


def test_the_command_checks_a_latency(device: DeviceFile, path: Path, tmp_path: Path, tell: RunCommand) -> None:
    network = save(NETWORK, tmp_path)
    needed = 1.1 * predicted_ms(device)
    fits = tell("check", network, "--max-latency", f"{2 * needed:.6f}ms", "--device-file", str(path))
    assert fits.code == 0
    assert "latency" in fits.out
    assert "±" in fits.out
    over = tell("check", network, "--max-latency", f"{needed / 2:.6f}", "--device-file", str(path), "--json")
    assert over.code == 3
    assert json.loads(over.out)["limits"][0]["limit"] == "latency_ms"
    space = tell(
        "space", write_space(tmp_path / "space.yaml", SMALL_SPACE), "--input-shape", "1,8,8",
        "--max-latency", "1s", "--device-file", str(path),
    )  # fmt: skip
    assert space.code == 0, space.err
    assert "least latency: " in space.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-latency", "2ms"], "--max-latency = 2.0: needs the file of a device, device_file"),
        (["--device-file", "FILE"], "needs a limit of the latency, max_latency_ms"),
        (["--max-latency", "fast", "--device-file", "FILE"], "--max-latency = 'fast': must be a time above 0"),
        (["--max-latency", "2ms", "--device-file", "none.yaml"], "no such file"),
    ],
)
def test_the_command_refuses_invalid_limits(
    options: list[str], message: str, path: Path, tmp_path: Path, tell: RunCommand
) -> None:
    given = [str(path) if option == "FILE" else option for option in options]
    done = tell("check", save(NETWORK, tmp_path), *given)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_other_images_than_the_files_are_refused(path: Path, tmp_path: Path, tell: RunCommand) -> None:
    larger = save(NETWORK.replace(input_shape=(1, 16, 16)), tmp_path)
    done = tell("check", larger, "--max-latency", "9ms", "--device-file", str(path))
    assert done.code == 2
    assert "it was made for images of 1x8x8 and 10 classes" in done.err


def searched(digits: DataSet, path: Path, out: Path, **changes: Any) -> bn.Study:
    settings: dict[str, Any] = {
        "data": digits,
        "max_params": None,
        "max_latency_ms": 1.0,
        "device_file": path,
        "trials": 2,
        "space": SMALL_SPACE,
        "sampler": "random",
        "pruner": "none",
        "recipe": tiny_recipe(epochs=1),
        "out": out,
        "device": "cpu",
        "train_size": 40,
        "validation_size": 20,
    }
    return bn.search(**{**settings, **changes})


def test_a_search_within_a_latency_times_its_finalists(
    digits: DataSet, device: DeviceFile, path: Path, tmp_path: Path, tell: RunCommand
) -> None:
    study = searched(digits, path, tmp_path, finalists=1, final_seeds=1, final_recipe=tiny_recipe(epochs=1))
    for trial in study.trials():
        assert 0 < trial.needs["latency_ms"] <= 1.0
    (final,) = study.finals()
    assert final.latency is not None
    assert final.latency.error == 0.1
    assert final.latency.predicted_ms == pytest.approx(predicted_ms(device, final.finalist.spec))
    # Unless the machine is busy.
    assert final.latency.measured_ms is None or final.latency.measured_ms > 0
    shown = tell("leaderboard", "--out", str(tmp_path))
    assert shown.code == 0, shown.err
    assert "at most 1.00 ms latency" in shown.out
    kept = json.loads(tell("leaderboard", "--out", str(tmp_path), "--json").out)
    assert kept["finals"][0]["latency"]["error"] == 0.1
    assert "latency_ms" in kept["rows"][0]


def test_a_latency_is_minimised_beside_accuracy(
    digits: DataSet, device: DeviceFile, path: Path, tmp_path: Path, tell: RunCommand
) -> None:
    finals: dict[str, Any] = {"finalists": 3, "final_seeds": 1, "final_recipe": tiny_recipe(epochs=1)}
    study = searched(digits, path, tmp_path, objectives="accuracy,latency", sizing="reject", trials=3, **finals)
    complete = [each for each in study if each.trial.outcome == "complete"]
    for each in complete:
        assert each.trial.amount("latency") == pytest.approx(predicted_ms(device, each.spec) * 1.1)
    kept = optuna.load_study(study_name=study.name, storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert kept.metric_names == ["validation accuracy", "latency"]
    front = {f"#{trial.number}" for trial in kept.best_trials}
    assert front == {each.trial.name for each in study.front()} == {each.finalist.name for each in study.finals()}
    shown = tell("leaderboard", "--out", str(tmp_path)).out
    assert "front: accuracy against latency" in shown
    assert study.figure("latency").layout.xaxis.title.text == "latency, ms (logarithmic)"
    assert "1.00 ms latency" in study.figure("hypervolume").layout.meta["alt"]


def test_a_study_stays_with_its_device(digits: DataSet, device: DeviceFile, path: Path, tmp_path: Path) -> None:
    searched(digits, path, tmp_path, study="mine", trials=1)
    copy = tmp_path / "copy.yaml"
    device.save(copy)
    # The file may move, but not change.
    searched(digits, copy, tmp_path, study="mine", trials=1)
    resigned(device, hardware=Hardware(cpu="another", machine="x", system="y", cores=1)).save(copy)
    with pytest.raises(RecordError, match=r"was made with deployed_on "):
        searched(digits, copy, tmp_path, study="mine", trials=1)


def test_pages_do_not_call_an_unknown_latency_a_number(digits: DataSet, path: Path, tmp_path: Path) -> None:
    study = searched(digits, path, tmp_path, trials=1)
    (trial,) = study.trials()
    trial = trial._replace(outcome="over budget", needs={"latency_ms": UNKNOWN_MS})
    (rejection,) = rejections([trial], study.settings.budget)
    assert rejection.why == "unknown latency: the device's file lacks one of its operations"
    assert budget_table(trial, study.settings).count("unknown") == 3, "used, headroom and share"
    candidate = Candidate(trial, 0, {"latency_ms": 1e9 - 1}, spec=NETWORK, record=None, trouble=None)
    assert "above 0: latency: unknown." in trial_note(candidate, study.settings)


def test_a_limit_that_no_network_meets(digits: DataSet, path: Path, tmp_path: Path) -> None:
    with pytest.raises(OverBudgetError, match=r"no network of the space fits the budget; the smallest, .* latency"):
        searched(digits, path, tmp_path, max_latency_ms=1e-5)
