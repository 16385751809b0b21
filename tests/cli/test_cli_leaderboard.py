"""`budgetnet leaderboard` of run folders and of finalists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_support import Runs
from report_support import WrittenStudy, network, report_of, text_of
from scipy.stats import sem, t
from statsmodels.stats.proportion import proportion_confint
from support import RunCommand

from budgetnet.visualization.report import render

pytestmark = pytest.mark.usefixtures("folder")


def test_runs_are_ranked_by_validation_accuracy(runs: Runs, tell: RunCommand) -> None:
    records = runs("good0", "good1")
    expected = sorted(records, key=lambda record: -(record.result.validation_correct or 0))
    answer = tell("leaderboard", "good0", "good1", "--json")
    assert (answer.code, answer.err) == (0, "")
    rows = [row for row in json.loads(answer.out)["rows"] if not row["is_reference"]]
    assert [row["run"] for row in rows] == [record.folder.name for record in expected]
    assert [row["accuracy"] for row in rows] == [
        (record.result.validation_correct or 0) / record.result.validation_images for record in expected
    ]
    shown = tell("leaderboard", "good0", "good1")
    assert shown.code == 0
    assert "2 runs" in shown.out
    assert "which also selected each run's best epoch by its loss" in " ".join(shown.out.split())
    assert all(f"{100 * row['accuracy']:.0f} [" in shown.out for row in rows)


@pytest.mark.parametrize(
    ("equal", "words"),
    [
        ((), "(Student's t)"),
        ((1,), "(Student's t, or Wilson's where the seeds do not differ)"),
        ((0, 1), "(Wilson's)"),
    ],
)
def test_the_kinds_of_intervals_of_finalists_are_named(
    tmp_path: Path, tell: RunCommand, equal: tuple[int, ...], words: str
) -> None:
    study, specs = WrittenStudy(tmp_path), {0: network(16), 1: network(24)}
    for spec in specs.values():
        study.complete(spec, 9_000)
    study.finals(2, specs, tests=[9_200, 9_260])
    for number in equal:
        # Its other seed has no result on the test set.
        (tmp_path / study.identity(specs[number], seed=1).run_id / "test.json").unlink()
    shown = tell("leaderboard", "--out", str(tmp_path))
    assert (shown.code, shown.err) == (0, "")
    assert f"with its 95 % interval {words};" in " ".join(shown.out.split())
    finals = json.loads(tell("leaderboard", "--out", str(tmp_path), "--json").out)["finals"]
    for number, each in ((int(each["name"][1:]), each) for each in finals):
        shares = [(count + number) / 10_000 for count in (9_200, 9_260)]
        if number in equal:
            expected = proportion_confint(9_200 + number, 10_000, method="wilson")
        else:
            expected = t.interval(0.95, 1, loc=sum(shares) / 2, scale=sem(shares))
            expected = max(0, expected[0]), min(1, expected[1])
        assert each["test_interval"] == pytest.approx(expected)
    page = text_of(render(report_of(study)))
    assert "Student's 95 % interval, or Wilson's where the seeds do not differ." in page


def test_duplicate_run_is_rejected(runs: Runs, tell: RunCommand) -> None:
    runs("good0")
    answer = tell("leaderboard", "good0", "good0")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert "twice" in answer.err


def test_a_folder_without_a_run_beside_one_is_named(runs: Runs, tell: RunCommand, folder: Path) -> None:
    runs("good0")
    (folder / "empty").mkdir()
    answer = tell("leaderboard", "good0", "empty")
    assert answer.code == 2
    assert "empty" in answer.err
    assert "contains no run" in answer.err
