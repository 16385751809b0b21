"""Ablations and reproductions in the data of reports, compared with scipy and committed results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from html_support import read
from report_support import (
    STUDIES,
    WrittenStudy,
    network,
    report_of,
    text_of,
    write_run,
)
from scipy.stats import ttest_rel
from support import TINY, tiny_recipe

from budgetnet import ablate, reproduce
from budgetnet.cli.reproduction_tables import print_reproduction
from budgetnet.common.errors import RecordError
from budgetnet.data.dataset import declared_cifar10, make_dataset
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.experiments.ablation.config import AblationConfig
from budgetnet.experiments.ablation.stored import store_ablation, stored_ablations
from budgetnet.model.zoo import get
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.store import RunFolder
from budgetnet.visualization.report import render
from budgetnet.visualization.report.ablations import read_ablations
from budgetnet.visualization.report.reproductions import is_declared, read_reproduction
from budgetnet.visualization.report.run_reader import Reader
from budgetnet.visualization.reproduction_html import reproduction_html


def test_ablation_is_read_with_its_overrides() -> None:
    found = read_ablations(STUDIES / "schedule", Reader())[0]
    kept = json.loads((STUDIES / "schedule" / "results" / "results.json").read_text())
    assert found.result.to_mapping()["rows"] == kept["rows"]
    assert found.result.study.digest == kept["digest"]
    assert found.override == ("spec=studies/leakage/spec.yaml", "epochs=60")
    assert found.remarks == ()


def test_an_ablation_with_bootstrap_intervals_is_reported_with_them(tmp_path: Path) -> None:
    shutil.copytree(STUDIES / "schedule" / "runs", tmp_path / "runs")
    (stored,) = stored_ablations(tmp_path / "runs")
    store_ablation(stored.config.replace(interval="bootstrap", out=tmp_path / "runs"))
    found = read_ablations(tmp_path, Reader())[0]
    differences = [row.difference for row in found.result.rows if row.difference]
    assert {each.method for each in differences} == {"bootstrap"}
    study = WrittenStudy(tmp_path / "study")
    assert "; bootstrap intervals. " in text_of(render(report_of(study, ablations=[tmp_path])))
    assert "; bootstrap intervals. " not in text_of(render(report_of(study, ablations=[STUDIES / "schedule"])))


def test_an_ablation_of_splits_is_reported_whole(tmp_path: Path) -> None:
    study = {"name": "splits", "spec": TINY, "recipe": tiny_recipe(epochs=1), "seeds": 2, "judged_on": "test"}
    study["factors"] = {"recipe.split_seed": [1]}
    sizes: dict[str, Any] = {"train_size": 64, "validation_size": 40, "device": "cpu", "verbosity": "quiet"}
    result = ablate(AblationStudy(**study), out=tmp_path, **sizes)
    found = read_ablations(tmp_path, Reader())[0]
    assert found.result.to_mapping()["rows"] == result.to_mapping()["rows"]
    assert len(found.result.rows) == 2
    assert found.remarks == ()


def test_an_ablation_compares_the_seeds_that_all_variants_have(tmp_path: Path) -> None:
    folder = tmp_path / "schedule"
    shutil.copytree(STUDIES / "schedule", folder)
    whole = read_ablations(folder, Reader())[0].result
    # Of one variant the first seed: paired by their places, all of its differences would be to other seeds.
    lost = whole.rows[1].cells[0].run
    shutil.rmtree(folder / "runs" / lost)
    found = read_ablations(folder, Reader())[0]
    assert found.result.study.seeds == (1, 2, 3, 4)
    base, *others = found.result.rows
    for row in others:
        pairs = [[cell.accuracy for cell in each.cells] for each in (row, base)]
        assert row.difference is not None
        assert row.difference.p_value == pytest.approx(ttest_rel(*pairs).pvalue)
    assert found.remarks == ("3 runs are omitted: other networks or recipes, or seeds that not all variants have",)


def test_all_ablations_of_a_folder_are_read_beside_other_runs(tmp_path: Path) -> None:
    shutil.copytree(STUDIES / "schedule" / "runs", tmp_path / "runs")
    whole = read_ablations(STUDIES / "schedule", Reader())[0].result
    (stored,) = stored_ablations(tmp_path / "runs")
    part = AblationStudy.load(STUDIES / "schedule" / "study.yaml").to_mapping()
    part |= {"name": "restarts", "factors": {"recipe.schedule": ["constant", "cosine-restarts"]}}
    changes = {"study": AblationStudy.from_mapping(part), "out": tmp_path / "runs", "change": stored.config.change}
    store_ablation(AblationConfig(**{**stored.config.to_mapping(), **changes}))
    # More runs on other data than those of the ablations.
    search = WrittenStudy(tmp_path / "runs")
    for width in range(1, 30):
        write_run(RunFolder(tmp_path / "runs" / f"other-{width}"), search.identity(network(width)), correct=9_000)
    found = read_ablations(tmp_path, Reader())
    assert {each.result.study.name for each in found} == {"schedule", "restarts"}
    own = next(each.result for each in found if each.result.study.name == "schedule")
    assert own.to_mapping()["rows"] == whole.to_mapping()["rows"]
    fewer = next(each.result for each in found if each.result.study.name == "restarts")
    kept = {row.variant.name: row.mean for row in whole.rows}
    assert {row.variant.name: row.mean for row in fewer.rows}.items() < kept.items()


def test_an_ablation_without_its_base_is_told_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "schedule"
    shutil.copytree(STUDIES / "schedule", folder)
    for cell in read_ablations(folder, Reader())[0].result.rows[0].cells:
        shutil.rmtree(folder / "runs" / cell.run)
    with pytest.raises(RecordError, match="has no run of the study's base"):
        read_ablations(folder, Reader())[0]
    shutil.rmtree(folder / "runs")
    with pytest.raises(RecordError, match="has no readable finished run"):
        read_ablations(folder, Reader())[0]


def test_a_leak_is_found_in_its_records() -> None:
    found = read_reproduction(STUDIES / "leakage", Reader())
    (result,) = found.leaks
    assert result.to_mapping() == json.loads((STUDIES / "leakage" / "leakage.json").read_text())
    assert (found.references, found.ladders, found.ensembles) == ((), (), ())


@pytest.fixture
def ladder(tmp_path: Path) -> Path:
    """Runs of all four rungs on original CIFAR-10, two seeds each, and one of the reference by the leaking recipe."""
    from record_support import data_record

    study = WrittenStudy(tmp_path / "study", data=data_record())
    runs = tmp_path / "ladder"
    rungs = ["ladder-small", "ladder-wide", "ladder-large-kernel", "reference"]
    for place, name in enumerate(rungs):
        for seed in (0, 1):
            identity = study.identity(get(name), seed=seed)
            test = 9_000 + 45 * place + 20 * seed
            write_run(RunFolder(runs / identity.run_id), identity, correct=9_000, test=test)
    identity = study.identity(get("reference"), recipe=named_recipe("as-run"))
    write_run(RunFolder(runs / identity.run_id), identity, correct=9_800, test=8_000)
    return runs


def test_trainings_on_other_numbers_of_images_are_another_ladder(ladder: Path, tmp_path: Path) -> None:
    from record_support import data_record

    fewer = data_record().model_copy(update={"train_images": 5_000, "split_fingerprint": "5" * 64})
    study = WrittenStudy(tmp_path / "fewer", data=fewer)
    for place, name in enumerate(("ladder-small", "ladder-wide", "ladder-large-kernel", "reference")):
        for seed in (0, 1):
            identity = study.identity(get(name), seed=seed)
            write_run(RunFolder(ladder / identity.run_id), identity, correct=6_000, test=6_000 + 45 * place + 20 * seed)
    found = read_reproduction(ladder, Reader()).ladders
    accuracies = sorted([rung.test_accuracy for rung in each.rungs] for each in found)
    expected = ([0.601, 0.6055, 0.61, 0.6145], [0.901, 0.9055, 0.91, 0.9145])
    assert [pytest.approx(each) for each in expected] == accuracies


def test_published_results_are_looked_for_in_records_by_what_these_are(ladder: Path) -> None:
    found = read_reproduction(ladder, Reader())
    outcomes = {result.rows[0].recipe: result.verdict for result in found.references}
    assert {recipe: verdict.outcome for recipe, verdict in outcomes.items()} == {
        "paper": "reproduced",
        "as-run": "not reproduced",
    }
    assert outcomes["paper"].comparison.mean == pytest.approx(fmean([0.9135, 0.9155]))
    (steps,) = found.ladders
    assert [rung.test_accuracy for rung in steps.rungs] == pytest.approx([0.901, 0.9055, 0.91, 0.9145])
    (leak,) = found.leaks
    # The one seed that both recipes have.
    assert [(side.recipe, side.n, round(side.gap, 4)) for side in leak.sides] == [
        ("as-run", 1, 0.18),
        ("paper", 1, -0.0135),
    ]


def test_an_approximate_accuracy_has_no_decimals_that_nobody_published(
    ladder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (steps,) = read_reproduction(ladder, Reader()).ladders
    page = render(report_of(WrittenStudy(tmp_path / "other"), reproductions=[ladder]))
    print_reproduction(steps, RunFolder(next(ladder.glob("ladder-small*"))).load(weights=False), out=ladder)
    stated = {"ladder-small": "~79", "ladder-wide": "~89", "ladder-large-kernel": "~90", "reference": "91.41"}
    for rung in steps.rungs:
        assert 100 * rung.published.accuracy == pytest.approx(float(stated[rung.published.name].lstrip("~")))
    cells = read(reproduction_html(steps).partition("<p>")[0]).cells
    assert cells[-1::-5][: len(stated)][::-1] == list(stated.values()), "the last column of the notebook's table"
    shown = capsys.readouterr().out
    for name, text in stated.items():
        assert f'<td class="n">{text}</td>' in page[page.index(f'<th scope="row">{name}</th>') :].partition("</tr>")[0]
        (line,) = [line for line in shown.splitlines() if line.startswith("│") and f" {name} " in line]
        assert f"│ {text:>8} │" in line
    for text in (page, shown, reproduction_html(steps)):
        assert "~ approximate in the paper" in text


def test_records_without_published_counterpart_are_reported(tmp_path: Path) -> None:
    study = WrittenStudy(tmp_path)
    identity = study.identity(network(8))
    write_run(RunFolder(tmp_path / "runs" / identity.run_id), identity, correct=9_000, test=9_000)
    found = read_reproduction(tmp_path / "runs", Reader())
    assert found.is_empty
    assert "These records cannot be compared with published results" in text_of(
        render(report_of(study, reproductions=[tmp_path]))
    )
    (tmp_path / "runs" / identity.run_id / "test.json").unlink()
    with pytest.raises(RecordError, match="has no run that was evaluated on the test set"):
        read_reproduction(tmp_path / "runs", Reader())


def test_only_runs_of_an_ensemble_are_an_ensemble_with_its_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    TINY.save("small.yaml")
    network(12).save("wide.yaml")
    options: dict[str, Any] = {"data": "digits", "epochs": 2, "train_size": 64, "validation_size": 40, "device": "cpu"}
    small = reproduce("ensemble", spec="small.yaml", members=2, max_params=10, **options)
    wide = reproduce("ensemble", spec="wide.yaml", members=3, max_params="unlimited", **options)
    others = reproduce("leakage", spec="small.yaml", seeds=3, **options)
    found = read_reproduction(tmp_path, Reader())
    assert len(others.records) == 6, "two recipes with three seeds each, one of which is no member"
    for members, limit in ((small, 10), (wide, None)):
        names = {record.folder.name for record in members.records}
        (own,) = [each for each in found.ensembles if {row.run for row in each.rows} == names]
        assert own.max_params == limit
    assert len(found.ensembles) == 2
    study = WrittenStudy(tmp_path / "study")
    words = text_of(render(report_of(study, reproductions=[tmp_path])))
    for members, judged in ((small, ", over 10."), (wide, ".")):
        params = len(members.records) * members.records[0].identity.spec.params
        assert f"Together {params:,} parameters{judged}" in words


def test_a_data_set_that_was_vouched_for_is_known_by_its_provenance() -> None:
    from report_support import DIGITS

    images = np.zeros((60_000, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(60_000) % 10
    parts: dict[str, Any] = {"train_images": images[:50_000], "train_labels": labels[:50_000]}
    parts |= {"test_images": images[50_000:], "test_labels": labels[50_000:]}
    copy = make_dataset(name="arrays:copy.npz", provenance="a copy", **parts)
    vouched = declared_cifar10(copy, field="--declare")
    assert is_declared(DIGITS.model_copy(update={"provenance": vouched.provenance}))
    assert not is_declared(DIGITS.model_copy(update={"provenance": copy.provenance}))
