"""`budgetnet ablate` on real runs: training, output, errors and resuming."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import TINY, RunCommand, snapshot, strict_json, tiny_recipe

from budgetnet.data import read_openings
from budgetnet.experiments.ablation.changes import EFFECT_RULE, POOLED_RULE
from budgetnet.runs.store import TEST_OPENINGS_FILE, RunFolder
from budgetnet.visualization.report.ablations import read_ablations
from budgetnet.visualization.report.run_reader import Reader

SMALL = ["--train-size", "64", "--validation-size", "40", "--device", "cpu"]
STUDY: dict[str, Any] = {
    "name": "tiny",
    "spec": "spec.yaml",
    "recipe": "recipe.yaml",
    "factors": {"spec.stages[0].channels": [8, 16, 64], "recipe.learning_rate": [0.05, 0.2]},
    "seeds": 2,
    "budget": {"max_params": "20k"},
    "data": "digits",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    TINY.save(tmp_path / "study" / "spec.yaml")
    tiny_recipe().save(tmp_path / "study" / "recipe.yaml")
    (tmp_path / "study" / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return tmp_path


def write_study(folder: Path, **changes: Any) -> str:
    (folder / "study" / "other.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return "study/other.yaml"


def answered(tell: RunCommand, *arguments: str) -> Any:
    answer = tell("ablate", *arguments, "--json")
    assert (answer.code, answer.err) == (0, "")
    return strict_json(answer.out)


def test_every_variant_within_budget_is_trained_with_every_seed(folder: Path, tell: RunCommand) -> None:
    found = answered(tell, "study", *SMALL)
    names = [row["variant"] for row in found["rows"]]
    assert names == ["base", "stages[0].channels=16", "stages[0].channels=64", "learning_rate=0.2"]
    assert [row["n"] for row in found["rows"]] == [2, 2, 0, 2]
    assert found["rows"][2]["remark"].startswith("over budget, not trained:")
    assert len(list((folder / "runs").glob("*/result.json"))) == 6
    for row in found["rows"]:
        for cell in row["runs"]:
            record = RunFolder(folder / "runs" / cell["run"]).load()
            assert (record.identity.seed, record.result.validation_accuracy) == (cell["seed"], cell["accuracy"])
            assert record.result.params == row["params"]
    assert not (folder / "runs" / TEST_OPENINGS_FILE).exists()
    before = snapshot(folder)
    table = tell("ablate", "study/study.yaml", *SMALL)
    assert snapshot(folder) == before, "answered from the records"
    assert "tiny: validation accuracy in per cent" in table.out
    assert "over budget" in table.out
    assert max(map(len, table.out.splitlines()[:8])) <= 120


def test_saving_writes_table_data_and_figure(folder: Path, tell: RunCommand) -> None:
    found = answered(tell, "study", *SMALL, "--save", "saved")
    with (folder / "saved" / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["variant"] for row in rows] == [row["variant"] for row in found["rows"]]
    assert [float(row["mean"]) for row in rows if row["mean"]] == pytest.approx(
        [row["mean"] for row in found["rows"] if row["mean"] is not None]
    )
    assert json.loads((folder / "saved" / "results.json").read_text()) == found
    page = (folder / "saved" / "forest.html").read_text()
    assert "learning_rate=0.2" in page


def test_test_set_is_used_once_and_only_on_request(folder: Path, tell: RunCommand) -> None:
    found = answered(tell, write_study(folder, judged_on="test"), *SMALL)
    (opening,) = read_openings(folder / "runs" / TEST_OPENINGS_FILE)
    assert (opening["by"], opening["reason"]) == ("ablate tiny", "an ablation of 3 variants")
    assert len(opening["runs"]) == 6
    for cell in found["rows"][0]["runs"]:
        record = RunFolder(folder / "runs" / cell["run"]).load()
        assert record.test is not None
        assert record.test.accuracy == cell["accuracy"]
    assert "test set used, see" in tell("ablate", "study/other.yaml", *SMALL).out
    assert len(read_openings(folder / "runs" / TEST_OPENINGS_FILE)) == 1


def test_options_override_the_study(folder: Path, tell: RunCommand) -> None:
    change = ["--change", "spec.stages[0].channels=12", "--change", "recipe.weight_decay=0", "--epochs", "1"]
    found = answered(tell, "study", *SMALL, *change, "--seeds", "1")
    record = RunFolder(folder / "runs" / found["rows"][0]["runs"][0]["run"]).load()
    assert record.identity.spec.stages[0].channels == 12
    assert (record.identity.recipe.weight_decay, record.identity.recipe.epochs) == (0, 1)
    assert found["seeds"] == [0]
    assert [row["difference"] is None for row in found["rows"]] == [True, False, False, True, False]
    longer = ["--change", "recipe=modern", "--epochs", "3", "--list"]
    assert answered(tell, "study", *longer)["rows"][0]["variant"] == "base", "one cycle is made as long as the training"
    other = answered(tell, "study", *SMALL, "--change", "spec=ladder-small", "--list")
    assert other["rows"][0]["architecture"] == "ladder-small"


def test_listing_trains_nothing(folder: Path, tell: RunCommand) -> None:
    before = snapshot(folder)
    listed = tell("ablate", "study", "--list")
    assert (listed.code, listed.err) == (0, "")
    assert "3 of 4 variants are within budget; 2 seeds each, 6 training runs" in listed.out
    macs = sum(row["macs"] for row in answered(tell, "study", "--list")["rows"] if row["fits"])
    found = re.search(r"base: recipe .*, (\d+) epochs?; all training runs: at most (\S+) PFLOP", listed.out)
    assert found is not None
    epochs = tiny_recipe().epochs
    # 1,149 of the 1,437 images are trained on, with six operations for each MAC, by two seeds.
    assert int(found[1]) == epochs
    assert float(found[2]) == pytest.approx(6 * macs * 1_149 * epochs * 2 / 1e15, rel=0.01)
    listed = tell("ablate", "study", "--list", "--seeds", "1")
    assert "3 of 4 variants are within budget; 1 seed each, 3 training runs" in listed.out
    assert [row["fits"] for row in answered(tell, "study", "--list")["rows"]] == [True, True, False, True]
    assert snapshot(folder) == before


def test_validation_images_are_the_same_for_all_variants(folder: Path, tell: RunCommand) -> None:
    for path, level in (("augmented_validation", True), ("split_seed", 1), ("validation_fraction", 0.5)):
        study = write_study(folder, factors={f"recipe.{path}": [level]})
        refused = tell("ablate", study, *SMALL)
        assert (refused.code, refused.out) == (2, "")
        assert "judged_on: test" in refused.err


def test_few_pairs_and_base_over_budget_are_reported(folder: Path, tell: RunCommand) -> None:
    assert (
        "bootstrap intervals of fewer than 10 pairs" in tell("ablate", "study", *SMALL, "--interval", "bootstrap").out
    )
    assert "bootstrap intervals of" not in tell("ablate", "study", *SMALL).out
    assert "the base is over budget" in tell("ablate", write_study(folder, budget={"max_params": 100}), "--list").out


def test_leaking_variant_is_evaluated_on_test_set_and_marked(folder: Path, tell: RunCommand) -> None:
    leak = {"factors": {"recipe.validation_split": ["fixed", "each-epoch"]}}
    refused = tell("ablate", write_study(folder, **leak), *SMALL)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "judged_on: test" in refused.err
    shown = tell("ablate", write_study(folder, **leak, judged_on="test"), *SMALL)
    assert shown.code == 0
    assert "validation_split=each-epoch: leaking:" in shown.out


def write_networks(folder: Path, **changes: Any) -> str:
    """A study of two networks with two options, each alone and all without it."""
    networks = {"basic": TINY.to_mapping(), "preact": TINY.replace(block="preact").to_mapping()}
    options = {"nesterov": {"recipe.nesterov": True}, "one-cycle": {"recipe.schedule": {"kind": "one-cycle"}}}
    study = {key: value for key, value in STUDY.items() if key not in ("spec", "factors")}
    study |= {"networks": networks, "options": options, "design": "alone-and-leave-one-out", **changes}
    (folder / "study" / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return "study"


def test_options_are_trained_for_every_network_and_a_report_finds_them_again(folder: Path, tell: RunCommand) -> None:
    study = write_networks(folder)
    before = snapshot(folder)
    listed = tell("ablate", study, "--list")
    # Of each network the base, two options, all; all without one option are the other, and are trained once.
    assert "8 of 8 variants are within budget; 2 seeds each, 16 training runs" in listed.out
    assert "trained as basic: one-cycle" in listed.out
    assert snapshot(folder) == before
    found = answered(tell, study, *SMALL, "--epochs", "1", "--save", "saved")
    runs = list((folder / "runs").glob("*/result.json"))
    assert len(runs) == 16
    assert len(found["rows"]) == 2 * 6
    for row in found["rows"]:
        for cell in row["runs"]:
            record = RunFolder(folder / "runs" / cell["run"]).load()
            assert record.identity.spec.block == row["network"]
            has_cycle = row["variant"] in ("one-cycle", "all", "all without nesterov")
            schedule = ("one-cycle", 1) if has_cycle else ("constant", 100)
            assert (record.identity.recipe.schedule.kind, record.identity.recipe.schedule.first_cycle) == schedule
            assert record.identity.recipe.epochs == 1
            assert record.identity.recipe.nesterov is (row["variant"] in ("nesterov", "all", "all without one-cycle"))
            assert (record.identity.seed, record.result.validation_accuracy) == (cell["seed"], cell["accuracy"])
    assert json.loads((folder / "saved" / "results.json").read_text()) == found
    assert "preact: all without nesterov" in (folder / "saved" / "forest.html").read_text()
    table = tell("ablate", study, *SMALL, "--epochs", "1").out
    assert list((folder / "runs").glob("*/result.json")) == runs
    assert "p-values corrected over all 10 differences on single networks (Holm)" in table
    assert "network preact" in table
    assert f"{EFFECT_RULE}\n{POOLED_RULE}\n" in table
    # The file may have any name, and the runs lie where the command was run.
    for place in (".", "runs"):
        answer = tell("report", "--ablation", place, "-o", "page.html")
        assert (answer.code, answer.err) == (0, "")
        assert "preact: all without nesterov" in (folder / "page.html").read_text()
        assert [each.result.to_mapping() for each in read_ablations(Path(place), Reader())] == [found]
    answer = tell("report", "--ablation", "saved", "-o", "page.html")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "study.yaml" in answer.err
    (folder / "runs").rename(folder / "study" / "runs")
    read = read_ablations(folder / "study", Reader())[0]
    assert read.result.to_mapping() == found
    assert read.override == ("epochs=1",)
    assert read.remarks == ()


def test_base_over_budget_is_reported_before_training(folder: Path, tell: RunCommand) -> None:
    big = {"basic": TINY.to_mapping(), "big": TINY.replace(channels=[128]).to_mapping()}
    study = write_networks(folder, networks=big)
    assert "the base of big is over budget" in tell("ablate", study, "--list").out
    before = snapshot(folder)
    refused = tell("ablate", study, *SMALL)
    assert (refused.code, refused.out, refused.err.count("\n")) == (3, "", 1)
    assert snapshot(folder) == before
    changed = tell("ablate", study, "--change", "spec=resnet20", "--list")
    assert changed.err.startswith("error: changes.spec = 'a specification': would give all networks the same")


def test_partial_report_uses_complete_runs(folder: Path, tell: RunCommand) -> None:
    study = write_networks(folder, seeds=4)
    partial = [study, *SMALL, "--epochs", "1", "--partial"]
    before = snapshot(folder)
    # Nothing is written, so a folder that cannot be written to is as good as any.
    for out in ([], ["--out", "study/spec.yaml"]):
        none = tell("ablate", *partial, *out)
        assert (none.code, none.out) == (0, "partial: 0 of 32 runs are complete; nothing was trained\n")
        assert tell("ablate", study, "--list", *out).code == 0
    assert snapshot(folder) == before
    whole = answered(tell, *partial[:-1])
    runs = {
        (row["network"], row["variant"], cell["seed"]): (folder / "runs" / cell["run"], cell["accuracy"])
        for row in whole["rows"]
        for cell in row["runs"]
    }
    # The base lacks seed 1; Nesterov lacks its end with seed 0, as while it is trained; the cycle has no run at all.
    shutil.rmtree(runs["basic", "base", 1][0])
    (runs["basic", "nesterov", 0][0] / "result.json").unlink()
    for seed in range(4):
        shutil.rmtree(runs["basic", "one-cycle", seed][0])
    before = snapshot(folder)
    shown = tell("ablate", *partial, "--save", "saved")
    assert (shown.code, shown.err) == (0, "")
    assert "partial: 26 of 32 runs are complete; nothing was trained\n" in shown.out
    found = tell("ablate", *partial, "--json")
    assert (found.code, found.err) == (0, "partial: 26 of 32 runs are complete; nothing was trained\n")
    mapping = json.loads(found.out)
    assert json.loads((folder / "saved" / "results.json").read_text()) == mapping
    shutil.rmtree(folder / "saved")
    assert snapshot(folder) == before
    rows = {(row["network"], row["variant"]): row for row in mapping["rows"]}
    kept = [(rows["basic", name]["n"], rows["basic", name]["pairs"]) for name in ("base", "nesterov", "one-cycle")]
    assert kept == [(3, 0), (3, 2), (0, 0)]
    expected = [runs["basic", "nesterov", seed][1] - runs["basic", "base", seed][1] for seed in (2, 3)]
    assert rows["basic", "nesterov"]["difference"] == pytest.approx(sum(expected) / 2)
    # All without Nesterov is the cycle, which has no run.
    nesterov = mapping["changes"][0]
    assert nesterov["pooled"]["alone"]["pairs"] == {"basic": 2, "preact": 4}
    assert nesterov["pooled"]["omitted"]["pairs"] == {"preact": 4}
    assert rows["preact", "all"] == {(row["network"], row["variant"]): row for row in whole["rows"]}["preact", "all"]


def test_partial_report_does_not_use_test_set(folder: Path, tell: RunCommand) -> None:
    partial = [write_study(folder, judged_on="test"), *SMALL, "--partial"]
    answered(tell, write_study(folder), *SMALL)
    write_study(folder, judged_on="test")
    assert tell("ablate", *partial).out == (
        "partial: 0 of 6 runs are complete and evaluated on the test set; nothing was trained\n"
    )
    assert not (folder / "runs" / TEST_OPENINGS_FILE).exists()
    whole = answered(tell, *partial[:-1])
    assert json.loads(tell("ablate", *partial, "--json").out) == whole


BAD: list[tuple[list[str], int, str]] = [
    (["nowhere.yaml"], 2, "ablation study = 'nowhere.yaml': no such file"),
    (["study", "--change", "recipe.epochs"], 2, "--change = 'recipe.epochs': must be PATH=VALUE"),
    (["study", "--change", "recipe.epoch=3"], 2, "changes"),
    (["study", "--change", "recipe.epochs=[1"], 2, "--change"),
    (["study", "--seeds", "0"], 2, "--seeds = '0'"),
    (["study", "--seeds", "5000"], 2, "--seeds = 5000"),
    (["study", "--out", "study/spec.yaml"], 2, "--out = 'study/spec.yaml': must be a writable folder"),
    (["study", "--save", "study/spec.yaml/x"], 2, "--save = 'study/spec.yaml/x': must be a writable folder"),
    (["study", "--interval", "z"], 2, "--interval = 'z': must be 't' or 'bootstrap'"),
    (["study", "--data", "nowhere"], 2, "--data"),
    (["study", "--partial", "--list"], 2, "--partial = '': must not be given with --list"),
    (["study", "--save", "results", "--list"], 2, "--save = 'results': must not be given with --list"),
    (["study", "--change", "spec.stages[0].channels=128"], 3, "basic-128x1"),
]


@pytest.mark.parametrize(("arguments", "code", "line"), BAD)
def test_bad_input_gives_one_line_and_writes_nothing(
    folder: Path, tell: RunCommand, arguments: list[str], code: int, line: str
) -> None:
    before = snapshot(folder)
    answer = tell("ablate", *arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (code, "", 1)
    assert answer.err.startswith(f"error: {line}")
    assert snapshot(folder) == before
