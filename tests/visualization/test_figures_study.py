"""Figures of a study: tables compared with hand counts and Optuna, and traces with the tables."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from figures_support import HOSTILE, texts
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from budgetnet.model.budget import Budget
from budgetnet.study.importance import LEAST_TRIALS, parameter_importance
from budgetnet.study.trials import OUTCOMES, Outcome, Trial
from budgetnet.visualization.figures import (
    accuracy_front,
    budget_use,
    budget_use_rows,
    front_rows,
    importance,
    rung_rows,
    rungs,
)
from budgetnet.visualization.figures.budget_use import OUTCOME_MARKS


def trial(
    number: int,
    *,
    outcome: Outcome = "complete",
    correct: int | None = None,
    params: int = 100,
    macs: int = 1_000,
    used: float = 0.5,
    reports: dict[int, float] | None = None,
    name: str = "net",
) -> Trial:
    return Trial(
        number,
        outcome,
        name,
        "0" * 64,
        params,
        macs,
        1,
        used,
        accuracy=None if correct is None else correct / 200,
        correct=correct,
        images=None if correct is None else 200,
        reports=reports or {},
    )


STUDY = [
    trial(0, correct=150, params=300, reports={1: 0.5, 2: 0.75}),
    trial(1, outcome="pruned", correct=60, params=100, reports={1: 0.3}),
    trial(2, outcome="over budget", params=900, used=9.0),
    trial(3, correct=120, params=200, reports={1: 0.4, 2: 0.6}),
    trial(4, correct=110, params=250, reports={1: 0.45, 2: 0.55}),
    trial(5, outcome="duplicate", params=300, reports={1: 0.5, 2: 0.75}),
    trial(6, outcome="running", params=300, reports={1: 0.2}),
    trial(7, outcome="no result", correct=190, params=50),
]


def drawn(figure: Any) -> dict[str, Any]:
    return {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in figure.data}


def test_front_excludes_candidates_over_budget() -> None:
    rows = front_rows(STUDY)
    assert [(row.name, row.cost, row.accuracy, row.complete, row.on_front) for row in rows] == [
        ("#1", 100, 0.3, False, False),
        ("#3", 200, 0.6, True, True),
        ("#4", 250, 0.55, True, False),
        ("#0", 300, 0.75, True, True),
    ]
    # Wilson's interval of 120 of 200 at 95 %, by hand: (0.6 + z²/400 ± z sqrt(0.24/200 + z²/160000)) / (1 + z²/200).
    z = 1.959964
    half = z * math.sqrt(0.24 / 200 + z * z / 160_000)
    expected = [(0.6 + z * z / 400 + side * half) / (1 + z * z / 200) for side in (-1, 1)]
    assert rows[1].interval == pytest.approx(expected, abs=1e-6)
    points = drawn(accuracy_front(STUDY, budget=Budget(max_params=400)))
    assert points == {
        "pruned at the end of a cycle": [(100, 30.0)],
        "fully trained": [(250, pytest.approx(55.0))],
        "front": [(200, 60.0), (300, 75.0)],
    }


@pytest.mark.parametrize(
    ("cost", "budget", "limit"),
    [
        ("params", Budget(max_params=400), 400),
        ("macs", Budget(max_params=400), None),
        ("macs", Budget(max_macs=2_000), 2_000),
        ("params", None, None),
    ],
)
def test_the_limit_that_binds_the_cost_is_drawn(cost: Any, budget: Budget | None, limit: int | None) -> None:
    figure = accuracy_front(STUDY, cost=cost, budget=budget)
    lines = [shape.x0 for shape in figure.layout.shapes if shape.name == "budget"]
    assert lines == ([] if limit is None else [limit])
    assert (f"budget {limit:,}" if limit else "budget") in " ".join(texts(figure)) or limit is None
    labels = [each.xanchor for each in figure.layout.annotations if each.text and each.text.startswith("budget ")]
    assert labels == ([] if limit is None else ["left"]), "beyond the limit, where no marker can lie under it"


def test_the_published_result_counts_as_one_only_beside_its_own_images() -> None:
    assert "published" in drawn(accuracy_front(STUDY, comparable=True))
    alone = accuracy_front(STUDY)
    assert "published" not in drawn(alone)
    assert "published" not in alone.layout.meta["alt"]


def test_every_proposal_stands_beside_the_line_of_all_the_budget() -> None:
    assert [(row.number, row.used) for row in budget_use_rows(list(reversed(STUDY)))] == [
        (each.number, each.budget_used) for each in STUDY
    ]
    figure = budget_use(STUDY)
    points = drawn(figure)
    assert points["over budget"] == [(2, 900.0)]
    assert sum(map(len, points.values())) == len(STUDY)
    assert figure.layout.yaxis.type == "log"
    assert budget_use(STUDY[:2]).layout.yaxis.type is None
    assert "Of 8 proposals 7 fit" in figure.layout.meta["alt"]


def test_each_outcome_has_its_own_marker() -> None:
    assert list(OUTCOME_MARKS) == [outcome for outcome in OUTCOMES if outcome != "resumed"]
    assert len({symbol for _, symbol in OUTCOME_MARKS.values()}) == len(OUTCOME_MARKS)


def test_rungs_count_reached_and_pruned_candidates() -> None:
    rows = rung_rows(STUDY)
    assert [tuple(row) for row in rows] == [(1, 5, 1, 0.5, 0.4), (2, 3, 0, 0.75, 0.6)]
    assert rung_rows([each for each in STUDY if each.number in (0, 3)])[0].median == 0.4
    first = trial(8, outcome="resumed", reports={1: 0.6})._replace(resumed_in=9)
    resumed = trial(9, correct=160, reports={2: 0.8}, used=0.9)
    again = rung_rows([*STUDY, first, resumed])
    assert [row.reached - before.reached for row, before in zip(again, rows, strict=True)] == [1, 1]
    assert [(row.number, row.used) for row in budget_use_rows([first, resumed])] == [(9, 0.9)]
    points = drawn(rungs(STUDY))
    assert points == {"continued or complete": [("1", 4), ("2", 3)], "pruned there": [("1", 1), ("2", 0)]}


@pytest.mark.parametrize("draw", [accuracy_front, budget_use, rungs])
def test_a_study_without_trials_has_figures_that_say_so(draw: Any) -> None:
    assert any(word in draw([]).layout.meta["alt"] for word in ("No candidate", "Nothing"))


@pytest.mark.parametrize("draw", [accuracy_front, budget_use])
def test_names_are_shown_as_they_stand(draw: Any) -> None:
    figure = draw([trial(0, correct=150, name=HOSTILE)])
    hovers = [text for trace in figure.data for text in (trace.text or ())]
    assert hovers and not any("<script" in text or "<b>" in text for text in hovers)


def study_of(values: list[tuple[float, float, float]]) -> optuna.Study:
    spans: dict[str, BaseDistribution] = {"matters": FloatDistribution(0, 1), "idle": FloatDistribution(0, 1)}
    study = optuna.create_study(direction="maximize")
    for value, matters, idle in values:
        study.add_trial(
            create_trial(
                value=value,
                params={"matters": matters, "idle": idle},
                distributions=spans,
                user_attrs={"trained": True},
            )
        )
    # None of these is a result of the study's own.
    ends: list[tuple[TrialState, dict[str, Any]]]
    ends = [(TrialState.PRUNED, {"trained": True}), (TrialState.COMPLETE, {"ended": "answered"})]
    for state, facts in ends:
        wild = {"matters": 0.0, "idle": 1.0}
        study.add_trial(create_trial(state=state, value=9.9, params=wild, distributions=spans, user_attrs=facts))
    return study


def test_importance_finds_the_relevant_parameter() -> None:
    generator = random.Random(0)
    draws = [(generator.random(), generator.random()) for _ in range(40)]
    shares = parameter_importance(study_of([(matters, matters, idle) for matters, idle in draws]))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["matters"] > 0.8
    few = [(matters, matters, idle) for matters, idle in draws[:LEAST_TRIALS]]
    assert parameter_importance(study_of(few[1:])) == {}
    assert set(parameter_importance(study_of(few))) == {"matters", "idle"}
    figure = importance(shares)
    (bars,) = figure.data
    assert list(bars.y) == ["matters", "idle"]
    assert list(bars.x) == pytest.approx([100 * shares["matters"], 100 * shares["idle"]])


def test_of_many_parameters_the_lesser_ones_share_a_bar() -> None:
    shares = {f"p{number:02}": 2.0 ** -(number + 1) for number in range(16)}
    (bars,) = importance(shares).data
    assert len(bars.y) == 11
    assert bars.y[-1] == "6 others"
    assert bars.x[-1] == pytest.approx(100 * sum(2.0 ** -(number + 1) for number in range(10, 16)))
