"""`bench report` and its synthetic study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import RunCommand

from budgetnet.bench.reporting import ReportBenchmark
from budgetnet.bench.synthetic_study import STUDY, write_study
from budgetnet.runs.store import RunFolder
from budgetnet.study.finalists import load_finals
from budgetnet.study.reading import read_trials
from budgetnet.study.storage import default_storage, find_study, open_storage


def test_synthetic_study_reads_like_a_real_one(tmp_path: Path) -> None:
    write_study(tmp_path, trials=5, environment={"python": "3.11"})
    study = find_study(open_storage(default_storage(tmp_path), create=False), STUDY)
    trials = read_trials(study)
    assert [(trial.outcome, trial.trained, trial.budget_used <= 1) for trial in trials] == [
        ("complete", True, True)
    ] * 5
    assert len({trial.spec for trial in trials}) == 5
    best = max(trials, key=lambda trial: trial.accuracy or 0)
    finals = load_finals(study)
    assert finals is not None
    assert finals.finalists[0].trial == best.number
    assert best.run in finals.finalists[0].runs
    records = [RunFolder(tmp_path / run).load(weights=False) for each in finals.finalists for run in each.runs]
    assert len(records) == 9
    assert all(record.result.params == record.identity.spec.params <= 5_000_000 for record in records)


def test_report_benchmark_measures_time_and_size(
    tell: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = tell("bench", "report", "--trials", "4", "--repeat", "1", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = json.loads(answer.out)
    assert list(found) == ["benchmark", "environment", "trials", "seconds", "bytes", "goals"]
    assert (found["benchmark"], found["trials"], found["goals"]) == ("report", 4, [])
    assert 0 < found["seconds"]["minimum"] == found["seconds"]["median"] == found["seconds"]["maximum"]
    # Plotly's script alone is this large.
    assert found["bytes"] > 4_000_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "size", "met"),
    [([9.0, 10.0, 30.0], 6_000_000, [True, True]), ([9.0, 10.5, 11.0], 6_000_001, [False, False])],
)
def test_goals_apply_from_1000_trials(seconds: list[float], size: int, met: list[bool]) -> None:
    assert ReportBenchmark({}, 999, seconds, size).goals == []
    assert [goal.met for goal in ReportBenchmark({}, 1_000, seconds, size).goals] == met


@pytest.mark.parametrize("arguments", [["--trials", "0"], ["--repeat", "0"], ["--trials", "many"]])
def test_invalid_counts_are_rejected(tell: RunCommand, arguments: list[str]) -> None:
    answer = tell("bench", "report", *arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
