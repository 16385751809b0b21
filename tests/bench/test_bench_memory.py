"""`bench memory`: predicted peak memory against ONNX Runtime, as JSON and as a table."""

from __future__ import annotations

import json

import pytest
from support import RunCommand

from budgetnet.bench.memory import Measured, MemoryBenchmark, draw


def test_peaks_of_one_network_are_predicted_exactly(tell: RunCommand) -> None:
    answer = tell("bench", "memory", "--networks", "1", "--json")
    assert (answer.code, answer.err) == (0, "")
    result = json.loads(answer.out)
    (network,) = result["networks"]
    assert (network["source"], network["architecture"]) == ("zoo", "reference")
    assert network["predicted"] == network["measured"]
    assert [goal["met"] for goal in result["goals"]] == [True, True]


@pytest.mark.parametrize("count", range(1, 31))
def test_as_many_networks_are_drawn_as_asked_for(count: int) -> None:
    drawn = [(source, spec.digest) for source, spec in draw(count, seed=0)]
    assert len(drawn) == count
    assert drawn == [(source, spec.digest) for source, spec in draw(31, seed=0)][:count], "more begin with fewer"


def test_goals_count_networks_that_are_near_and_that_need_more() -> None:
    found = [Measured("zoo", "a", predicted, 1000) for predicted in (1000, 1020, 979, 949)]
    near, under = MemoryBenchmark({}, 16, found).goals
    assert (near.measured, near.met) == (50.0, False)
    assert (under.measured, under.met) == (1, False)
