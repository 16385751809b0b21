"""What a study's trials are as plain rows, and which of them no other beats."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_support import SearchRunner

from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.study.objectives import CostName
from budgetnet.study.reading import read_trials
from budgetnet.study.trials import Outcome, Trial, count_outcomes, front, one_per_candidate, outcome_text


@pytest.fixture
def run_search(digits: DataSet, tmp_path: Path) -> SearchRunner:
    return SearchRunner(digits, tmp_path)


def trial(number: int, accuracy: float | None, params: int, *, macs: int = 1, outcome: Outcome = "complete") -> Trial:
    return Trial(number, outcome, f"net-{number}", "0" * 64, params, macs, 1, 0.5, accuracy=accuracy, trained=True)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6), st.booleans()), max_size=12))
def test_front_matches_brute_force(drawn: list[tuple[int, int, bool]]) -> None:
    trials = [
        trial(number, accuracy / 10, params, outcome="complete" if complete else "pruned")
        for number, (accuracy, params, complete) in enumerate(drawn)
    ]
    complete = [each for each in trials if each.outcome == "complete"]

    def beats(one: Trial, other: Trial) -> bool:
        assert one.accuracy is not None and other.accuracy is not None
        no_worse = one.accuracy >= other.accuracy and one.params <= other.params
        alike = one.accuracy == other.accuracy and one.params == other.params
        return no_worse and (not alike or one.number < other.number)

    unbeaten = [each for each in complete if not any(beats(other, each) for other in complete if other is not each)]
    assert front(trials) == sorted(unbeaten, key=lambda each: each.params)


def test_the_front_minds_the_cost_it_is_asked_for() -> None:
    small_and_slow, large_and_fast = trial(0, 0.9, 10, macs=100), trial(1, 0.8, 20, macs=1)
    assert front([small_and_slow, large_and_fast]) == [small_and_slow]
    assert front([small_and_slow, large_and_fast], costs=("macs",)) == [large_and_fast, small_and_slow]


def test_a_cost_that_is_not_stored_leaves_a_trial_out() -> None:
    known, other = trial(0, 0.5, 10)._replace(needs={"peak_memory": 5}), trial(1, 0.9, 10)
    assert front([known, other], costs=("peak_memory",)) == [known]
    assert (known.amount("peak_memory"), known.amount("params"), other.amount("latency")) == (5, 10, None)
    with pytest.raises(InputError, match=r"^cost = 'latency': must be limited or minimised by the study$"):
        front([known, other], costs=("latency",))


@pytest.mark.parametrize("outcome", ["pruned", "over budget", "duplicate", "running", "interrupted", "no result"])
def test_front_has_only_complete_trials(outcome: Outcome) -> None:
    assert front([trial(0, 0.99, 1, outcome=outcome), trial(1, 0.5, 2)]) == [trial(1, 0.5, 2)]


def test_an_unknown_cost_is_refused() -> None:
    unknown: CostName = "seconds"  # type: ignore[assignment]
    with pytest.raises(InputError, match="must be one of params, macs, activations"):
        front([], costs=(unknown,))


def test_every_trial_of_a_study_is_a_row(run_search: SearchRunner) -> None:
    study = run_search(trials=3).study
    rows = read_trials(study)
    kept = study.get_trials()
    assert [row.number for row in rows] == [each.number for each in kept]
    for row, each in zip(rows, kept, strict=True):
        facts = each.user_attrs
        assert (row.params, row.macs, row.spec) == (facts["params"], facts["macs"], facts["spec"])
        assert (row.outcome == "over budget") is any(value > 0 for value in each.constraints.values())
        assert (row.accuracy is not None) is bool(facts.get("trained"))
        assert row.sampled == each.params
    counts = count_outcomes(rows)
    assert counts["trained"] == 3
    assert counts["over_budget"] == sum(row.budget_used > 1 for row in rows)


def test_a_candidate_that_was_interrupted_twice_is_counted_once() -> None:
    trials = [
        trial(0, None, 1, outcome="resumed")._replace(resumed_in=2, reports={1: 0.3}, trained=False),
        trial(1, 0.5, 1)._replace(reports={1: 0.4, 2: 0.5}),
        trial(2, None, 1, outcome="resumed")._replace(resumed_in=3, reports={2: 0.4}, trained=False),
        trial(3, 0.6, 1)._replace(reports={4: 0.6}),
        trial(4, None, 1, outcome="interrupted")._replace(reports={1: 0.1}, trained=False),
        trial(5, None, 1, outcome="running")._replace(trained=False),
    ]
    kept = one_per_candidate(reversed(trials))
    assert [(each.number, dict(each.reports)) for each in kept] == [
        (1, {1: 0.4, 2: 0.5}),
        (3, {1: 0.3, 2: 0.4, 4: 0.6}),
        (4, {1: 0.1}),
        (5, {}),
    ]
    assert one_per_candidate(kept) == kept
    counts = count_outcomes(trials)
    assert counts == count_outcomes(kept)
    assert {name: count for name, count in counts.items() if count} == {"trained": 2, "running": 1, "interrupted": 1}
    assert outcome_text(counts) == (
        "2 trained, 0 of them pruned at the end of a cycle; 0 rejected before training (over budget), 0 duplicates, "
        "0 without a result, 1 in training, 1 interrupted"
    )
