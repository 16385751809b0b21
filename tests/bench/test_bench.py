"""Timing of tasks, with a simulated clock, and `bench check`."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable

import pytest
import torch
from support import RunCommand

from budgetnet.bench import check as bench_check
from budgetnet.bench.measure import Measurement, Task, measure, ratios
from budgetnet.common.errors import BudgetnetError
from budgetnet.common.formatting import short_seconds
from budgetnet.model.cost import Cost
from budgetnet.model.zoo import get


class Clock:
    """A simulated clock that only its tasks advance."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def task(self, name: str, *durations: float) -> Callable[..., None]:
        """Return a task that takes these durations in order, and the last one from then on."""
        remaining = list(durations)

        def call(*arguments: object) -> None:
            assert not gc.isenabled()
            self.calls.append(name)
            self.now += remaining.pop(0) if len(remaining) > 1 else remaining[0]

        return call


def test_tasks_alternate_after_a_warm_up() -> None:
    clock = Clock()
    tasks = {"slow": Task(clock.task("slow", 100.0, 4.0, 1.0, 6.0, 2.0)), "even": Task(clock.task("even", 1.0))}
    found = measure(tasks, seconds=0.5, clock=clock)
    assert clock.calls == [*["slow"] * 2, *["even"] * 2, *["slow", "even"] * 3]
    assert found["slow"] == Measurement(median=2.0, minimum=1.0, maximum=6.0, samples=3, calls=1)
    assert found["even"] == Measurement(median=1.0, minimum=1.0, maximum=1.0, samples=3, calls=1)
    assert ratios(found, to="even") == {"slow": 2.0}


def test_rounds_continue_until_the_time_is_up() -> None:
    clock = Clock()
    found = measure({"a": Task(clock.task("a", 0.25)), "b": Task(clock.task("b", 0.5))}, seconds=3.1, clock=clock)
    assert {times.samples for times in found.values()} == {5}


def test_short_calls_are_repeated_until_a_sample_is_long_enough() -> None:
    clock = Clock()
    found = measure({"short": Task(clock.task("short", 1e-4))}, seconds=0.0, clock=clock)
    assert found["short"].calls == 32
    assert found["short"].median == pytest.approx(1e-4)
    # Warm-up and calibration, then three samples.
    assert len(clock.calls) == 1 + (1 + 2 + 4 + 8 + 16 + 32) + 3 * 32


def test_prepare_runs_before_every_call_and_is_not_timed() -> None:
    clock, arguments = Clock(), iter(range(100))
    seen: list[object] = []

    def prepare() -> int:
        clock.now += 1000.0
        return next(arguments)

    def call(argument: object) -> None:
        seen.append(argument)
        clock.now += 1e-5

    found = measure({"fresh": Task(call, prepare, units=10)}, seconds=0.0, clock=clock)
    assert seen == [0, 1, 2, 3]
    assert found["fresh"].calls == 1
    assert found["fresh"].median == pytest.approx(1e-6, rel=1e-3)


def test_garbage_collection_is_enabled_again_after_a_failing_task() -> None:
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        measure({"fails": Task(fail)}, seconds=0.0)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (2.5, "2.50 s"),
        (0.0166, "16.6 ms"),
        (7.12e-6, "7.12 µs"),
        (0.00099999, "1.00 ms"),
        (0.0009994, "999 µs"),
        (3e-10, "0.30 ns"),
        (123.0, "123 s"),
    ],
)
def test_times_are_shown_with_three_digits(seconds: float, shown: str) -> None:
    assert short_seconds(seconds) == shown


METHODS = ["closed form", "thop", "build and thop", "torch's counter", "build alone"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer networks and candidates, to be quick."""
    monkeypatch.setattr(bench_check, "NAMED", ("reference", "resnet20"))
    monkeypatch.setattr(bench_check, "_VECTORISED_CANDIDATES", 2000)
    monkeypatch.setattr(bench_check, "_CLOSED_FORM_CANDIDATES", 10)


@pytest.mark.usefixtures("few")
def test_check_reports_equal_counts_and_times_of_every_method(tell: RunCommand) -> None:
    answer = tell("bench", "check", "--seconds", "0.01", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = json.loads(answer.out)
    assert list(found) == ["benchmark", "environment", "counts", "rows", "ratios", "goals"]
    assert found["benchmark"] == "check"
    assert {"python", "processor", "cores", "threads", "packages"} <= set(found["environment"])
    assert "thop" in found["environment"]["packages"]
    assert found["counts"][0] == {
        "network": "reference",
        **get("reference").cost._asdict(),
        "agreed": ["closed form", "plan", "built parameters", "thop", "torch's counter"],
    }
    assert "vectorised" in found["counts"][-1]["agreed"]
    methods: dict[str, list[str]] = {}
    for row in found["rows"]:
        methods.setdefault(row["network"], []).append(row["method"])
        assert 0 < row["minimum"] <= row["median"] <= row["maximum"]
        assert row["samples"] >= 3
    assert methods == {"reference": METHODS, "resnet20": METHODS, "new candidates": ["vectorised", *METHODS]}
    for network, ratio in found["ratios"].items():
        assert list(ratio) == [method for method in methods[network] if method != "closed form"]
    assert [set(goal) for goal in found["goals"]] == [{"goal", "unit", "measured", "limit", "met"}] * 3


@pytest.mark.usefixtures("few")
def test_check_prints_a_table_of_at_most_80_columns(tell: RunCommand) -> None:
    threads = torch.get_num_threads()
    answer = tell("bench", "check", "--seconds", "0.01")
    assert (answer.code, answer.err) == (0, "")
    *lines, _processor, threaded, _packages = answer.out.splitlines()
    assert max(len(line.rstrip()) for line in [*lines, threaded]) <= 80
    assert answer.out.count("(goal ") == 3
    assert torch.get_num_threads() == threads


def timed(median: float, *, minimum: float = 1.0) -> Measurement:
    return Measurement(median, minimum, 9.0, 3, 1)


@pytest.mark.parametrize(
    ("thop", "threaded", "met"), [(0.0201, 0.03, True), (0.0199, 0.03, False), (0.03, 0.01, False)]
)
def test_goal_compares_with_the_fastest_sample_of_thop(thop: float, threaded: float, met: bool) -> None:
    reference = {
        "closed form": timed(1e-5, minimum=1e-9),
        "thop": timed(9.0, minimum=thop),
        "thop, threaded": timed(9.0, minimum=threaded),
    }
    candidates = {"closed form": timed(1.1e-4), "vectorised": timed(1e-6)}
    goals = bench_check.CheckBenchmark({}, [], {"reference": reference, "new candidates": candidates}).goals
    assert [goal.met for goal in goals] == [met, False, True]
    assert goals[0].measured == pytest.approx(min(thop, threaded) / 1e-5)


def test_check_fails_if_counts_differ(tell: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_check, "plan_cost", lambda _plan: Cost(1, 2, 3))
    answer = tell("bench", "check", "--seconds", "0.01")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: the counts of reference differ: ")
    with pytest.raises(BudgetnetError):
        bench_check.run(seconds=0.01, progress=lambda *_: None)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x", "3601"])
def test_invalid_seconds_are_rejected(tell: RunCommand, seconds: str) -> None:
    answer = tell("bench", "check", f"--seconds={seconds}")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "--seconds" in answer.err
