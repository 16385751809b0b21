"""`bench search` and `bench start`, and invalid options of these and of `bench workers`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from optuna.trial import FrozenTrial
from support import RunCommand, child_environment

from budgetnet.bench import search, startup
from budgetnet.bench.search import Overhead, SearchBenchmark, TrainedCandidate
from budgetnet.bench.startup import Start, StartBenchmark
from budgetnet.cli.bench_search import TRAIN_IMPORTS
from budgetnet.model.zoo import get
from budgetnet.study.proposer import Proposal, Proposals

SEARCH = ["bench", "search", "--trials", "1", "--max-params", "70k", "--epochs", "1", "--device", "cpu"]


def test_search_benchmark_reports_training_and_overhead(
    tell: RunCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(search, "REPEATS", 12)
    monkeypatch.setattr(search, "KNOWN", 30)
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[bool, int]] = []

    class RecordedProposals(Proposals):
        def stored(self, proposal: Proposal, trial: FrozenTrial) -> None:
            seen.append((proposal.candidate.verdict.fits, trial.number))
            super().stored(proposal, trial)

    monkeypatch.setattr(search, "Proposals", RecordedProposals)
    answer = tell(*SEARCH, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert seen == [*((False, number) for number in range(12)), *((True, number) for number in range(30 + 12))]
    found = json.loads(answer.out)
    assert list(found) == [
        *("benchmark", "environment", "data", "budget", "recipe", "rows", "rejected", "seconds"),
        *("candidates_per_hour", "overhead_per_candidate", "overhead_share", "rejections", "known", "late", "goals"),
    ]
    assert (found["benchmark"], found["data"], found["budget"]["max_params"]) == ("search", "digits", 70_000)
    assert (found["recipe"]["name"], found["recipe"]["epochs"]) == ("digits", 1)
    (row,) = found["rows"]
    assert set(row) == {"architecture", "params", "epochs", "training_seconds", "seconds"}
    assert 0 < row["training_seconds"] < row["seconds"] < found["seconds"]
    assert (row["epochs"], row["params"] <= 70_000) == (1, True)
    assert found["candidates_per_hour"] == pytest.approx(3600 / found["seconds"])
    assert found["overhead_per_candidate"] == pytest.approx(found["seconds"] - row["training_seconds"])
    assert found["overhead_share"] == pytest.approx(1 - row["training_seconds"] / found["seconds"])
    for parts in (found["rejections"], found["late"]):
        assert list(parts) == ["proposal", "write", "all"]
        for spread in parts.values():
            assert 0 < spread["minimum"] <= spread["median"] <= spread["maximum"]
        assert parts["all"]["minimum"] >= parts["proposal"]["minimum"] + parts["write"]["minimum"]
    (goal,) = found["goals"]
    assert (goal["measured"], goal["limit"]) == (found["late"]["all"]["median"], 0.03)
    assert list(tmp_path.iterdir()) == []


OVERHEADS = [Overhead(0.5, 0.25), Overhead(0.0, 1.0), Overhead(0.25, 0.5)]


def test_search_benchmark_summarises_its_candidates(tell: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_measure_overhead", lambda *_, **__: OVERHEADS)
    results: list[SearchBenchmark] = []
    run = search.run

    def without_training(*arguments: Any, **options: Any) -> SearchBenchmark:
        candidates = [
            TrainedCandidate("basic-" * 20, 4_900_000, 100, 30.0, 31.0),
            TrainedCandidate("small", 70_000, 100, 50.0, 52.0),
        ]
        results.append(run(*arguments, **options)._replace(candidates=candidates, seconds=100.0, rejected=7))
        return results[0]

    monkeypatch.setattr(search, "run", without_training)
    answer = tell(*SEARCH)
    assert (answer.code, answer.err) == (0, "")
    measured = results[0]
    assert (measured.candidates_per_hour, measured.overhead) == (72.0, 10.0)
    assert measured.overhead_share == pytest.approx(0.2)
    parts = {"proposal": (0.25, 0.0, 0.5), "write": (0.5, 0.25, 1.0), "all": (0.75, 0.75, 1.0)}
    assert search.summarise(measured.late) == search.summarise(measured.rejections) == parts
    *lines, _processor, _versions = answer.out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "72 candidates per hour; 2 trained, 7 rejected (over budget)" in answer.out
    assert "overhead of candidate 1,001 of a study: 750 ms (goal 30.0 ms)" in answer.out


@pytest.mark.parametrize(("seconds", "met"), [(105.0, True), (106.0, False)])
def test_overhead_goal_is_5_percent_from_30_candidates(seconds: float, met: bool) -> None:
    candidate = TrainedCandidate("small", 70_000, 1, 100 / 30, 3.5)
    few, many = (
        SearchBenchmark({}, None, [candidate] * count, 0, seconds, OVERHEADS, OVERHEADS)  # type: ignore[arg-type]
        for count in (29, 30)
    )
    assert len(few.goals) == 1
    assert [goal.met for goal in many.goals] == [False, met]


def test_infeasible_budget_is_rejected(tell: RunCommand) -> None:
    answer = tell("bench", "search", "--max-params", "100", "--device", "cpu")
    assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)


@pytest.mark.slow
def test_start_benchmark_reports_every_phase(tell: RunCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    answer = tell("bench", "start", "resnet20", "--repeat", "2", "--device", "cpu", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = json.loads(answer.out)
    assert list(found) == ["benchmark", "environment", "network", "data", "rows", "parts", "goals"]
    assert (found["benchmark"], found["data"], found["goals"]) == ("start", "digits", [])
    digits = get("resnet20").replace(input_shape=(1, 8, 8), num_classes=10)
    assert found["network"] == {"name": "resnet20", **digits.cost._asdict()}
    assert len(found["rows"]) == 2
    parts = ["interpreter", "imports", "data", "device", "first_step"]
    for row in found["rows"]:
        assert list(row) == [*parts, "total"]
        assert all(row[part] > 0 for part in parts)
        assert row["total"] == pytest.approx(sum(row[part] for part in parts))
    for part, spread in found["parts"].items():
        times = [row[part] for row in found["rows"]]
        assert spread == pytest.approx({"median": median(times), "minimum": min(times), "maximum": max(times)})
    assert list(found["parts"]) == [*parts, "total"]
    assert list(tmp_path.iterdir()) == []


def test_start_prints_a_table_of_at_most_80_columns(tell: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_start", lambda _task: Start(0.02, 2.0, 1.0, 0.1, 100.0))
    answer = tell("bench", "start", "--device", "cpu")
    assert (answer.code, answer.err) == (0, "")
    *lines, _processor, _versions = answer.out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "reference on digits, on cpu" in answer.out
    assert "3 fresh interpreters" in answer.out


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the process was killed (exit code -9)"),
        ("raise ValueError('nothing to start')", "ValueError: nothing to start"),
    ],
)
def test_failing_start_is_one_line(
    tell: RunCommand, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    monkeypatch.setattr(startup, "_PROGRAM", program)
    answer = tell("bench", "start", "--repeat", "1", "--device", "cpu")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"error: the start failed before its first step: {message}\n"


def test_train_imports_are_complete() -> None:
    code = """
import importlib, sys
from budgetnet.cli.bench_search import TRAIN_IMPORTS
for module in TRAIN_IMPORTS:
    importlib.import_module(module)
before = set(sys.modules)
from budgetnet.training import progress
from budgetnet.cli import main
def stop(_name, **_options):
    packages = {name.partition(".")[0] for name in before} - {"budgetnet"}
    print([name for name in set(sys.modules) - before if name.partition(".")[0] not in packages])
    raise SystemExit
progress.load_with_progress = stop
main.main(["train", "reference", "--device", "cpu"])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert "torch" not in TRAIN_IMPORTS


@pytest.mark.parametrize(("device", "seconds", "met"), [("cuda", 5.0, [True]), ("cuda", 5.25, [False]), ("cpu", 1, [])])
def test_start_goal_is_5_seconds_on_cuda_only(device: str, seconds: float, met: list[bool]) -> None:
    slow, start = Start(9, 9, 9, 9, 9), Start(0.5, 0.25, 0.125, 0.125, seconds - 1)
    goals = StartBenchmark({"device": device}, get("reference"), "digits", [slow, start, start]).goals
    assert [goal.met for goal in goals] == met


@pytest.mark.parametrize(
    ("command", "option", "value", "rule"),
    [
        ("workers", "--workers", "0", "at least 1"),
        ("workers", "--workers", "x", "whole number"),
        ("workers", "--workers", "1,,2", "whole number"),
        ("workers", "--workers", "65", "from 1 to 64"),
        ("workers", "--params", "x", "whole number"),
        ("workers", "--params", "1000", "from 19,902 to 7,657,370"),
        ("workers", "--params", "1M,1e12", "from 19,902 to 7,657,370"),
        ("workers", "--batch", "1", "from 2 to 65,536"),
        ("workers", "--seconds", "0", "more than 0"),
        ("workers", "--device", "tpu", "must be one of"),
        ("search", "--trials", "0", "at least 1"),
        ("search", "--trials", "x", "whole number"),
        ("search", "--max-params", "none", "whole number"),
        ("search", "--epochs", "0", "at least 1"),
        ("search", "--data", "digit", "did you mean digits?"),
        ("start", "--repeat", "0", "at least 1"),
        ("start", "--repeat", "1001", "from 1 to 1,000"),
        ("start", "--data", "imagenet", "must be digits"),
        ("start", "--device", "tpu", "must be one of"),
    ],
)
def test_invalid_options_are_one_line(tell: RunCommand, command: str, option: str, value: str, rule: str) -> None:
    answer = tell("bench", command, f"{option}={value}")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    # Errors about data name the field, not the option.
    assert option.lstrip("-") in answer.err
    assert rule in answer.err
