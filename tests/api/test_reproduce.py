"""Python API: reproductions of published results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from html_support import read
from support import TINY, RunCommand, tiny_recipe

import budgetnet as bn
from budgetnet.data import DataSet, read_openings
from budgetnet.experiments.reproduction.config import LeakageConfig
from budgetnet.model.cost import cost_of
from budgetnet.runs.store import TEST_OPENINGS_FILE
from budgetnet.training.callbacks import RunInfo

SMALL: dict[str, Any] = {"train_size": 16, "validation_size": 10, "epochs": 1, "device": "cpu"}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    TINY.save(tmp_path / "tiny.yaml")
    tiny_recipe(name="short").save(tmp_path / "recipe.yaml")
    return {"spec": str(tmp_path / "tiny.yaml"), "recipe": str(tmp_path / "recipe.yaml")}


class Starts(bn.Callback):
    """Callback that counts the runs that start."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        self.seeds.append(run.identity.seed)


def test_leakage_is_what_the_command_prints(
    digits: DataSet, files: dict[str, Any], tmp_path: Path, tell: RunCommand
) -> None:
    starts = Starts()
    how: dict[str, Any] = {**SMALL, "spec": files["spec"], "seeds": 2, "out": tmp_path / "runs"}
    found = bn.reproduce("leakage", data=digits, callbacks=[starts], **how)
    assert starts.seeds == [0, 0, 1, 1], "both recipes with one seed before the next seed"
    (opening,) = read_openings(tmp_path / "runs" / TEST_OPENINGS_FILE)
    assert opening["by"] == "reproduce leakage"
    options = [word for name, value in how.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    answer = tell("reproduce", "leakage", "--data", "digits", *options, "--json")
    assert json.loads(answer.out) == json.loads(json.dumps(found.to_mapping()))
    assert [run.folder.name for run in found.runs] == [record.folder.name for record in found.records]
    frame = found.frame()
    gaps = frame["validation_accuracy"] - frame["test_accuracy"]
    assert list(frame["gap"]) == pytest.approx(list(gaps))
    leaking, sound = (gaps[frame["leaks"] == leaks].mean() for leaks in (True, False))
    text = read(found._repr_html_()).text
    assert f"widens the gap by {100 * (leaking - sound):+.2f}" in text
    assert text.count("as-run (leaking)") == 2
    again = bn.reproduce(found.config, data=digits, callbacks=[starts])
    assert (again.to_mapping(), starts.seeds) == (found.to_mapping(), [0, 0, 1, 1]), "nothing is trained again"


def test_ladder_and_ensemble_show_their_networks_and_members(
    digits: DataSet, files: dict[str, Any], tmp_path: Path
) -> None:
    ladder = bn.reproduce("ladder", data=digits, recipe=files["recipe"], seeds=1, out=tmp_path / "ladder", **SMALL)
    shown = read(ladder._repr_html_()).text
    for name in ("ladder-small", "ladder-wide", "ladder-large-kernel", "reference"):
        spec = bn.zoo.get(name).replace(input_shape=digits.input_shape, num_classes=digits.num_classes)
        assert f"{cost_of(spec).params:,}" in shown
    assert "not comparable" in shown
    ensemble = bn.reproduce("ensemble", data=digits, members=2, out=tmp_path / "ensemble", **files, **SMALL)
    accuracy = ensemble.to_mapping()["ensemble"]["accuracy"]
    assert f"Ensemble: {100 * accuracy:.2f} %" in read(ensemble._repr_html_()).text
    assert len(ensemble.frame()) == 2


@pytest.mark.parametrize(
    ("what", "fields", "field"),
    [
        ("refrence", {}, "what"),
        ("reference", {"seeds": 0}, "seeds"),
        ("reference", {"spec": "reference"}, "spec"),
        ("ensemble", {"members": 1}, "members"),
        ("leakage", {"spec": "nowhere.yaml"}, "spec"),
        ("ladder", {"recipe": "nowhere"}, "recipe"),
        ("reference", {"track": ("paper",)}, "track"),
        (LeakageConfig(), {"sedes": 2}, "sedes"),
    ],
)
def test_invalid_field_is_named(what: Any, fields: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(bn.InputError) as caught:
        bn.reproduce(what, data="digits", out=tmp_path / "runs", **fields)
    assert caught.value.field.split("[")[0] == field
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_folder_of_runs_must_be_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(bn.InputError, match=r"out = .*writable folder"):
        bn.reproduce("reference", data="digits", out=tmp_path / "file" / "runs")
