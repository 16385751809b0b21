"""Leaderboard: order, intervals against scipy, and rank of the published row."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binomtest

from budgetnet.cli.tables import leaderboard_table
from budgetnet.model.published import reference
from budgetnet.study.leaderboard import Candidate, LeaderboardRow, rank


def candidate(name: str, correct: int, images: int = 10_000, params: int = 1_000) -> Candidate:
    return Candidate(name, f"net-{name}", params, 2 * params, correct, images, f"run-{name}", 7)


def wilson(correct: int, images: int, level: float = 0.95) -> tuple[float, float]:
    interval = binomtest(correct, images).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def ranked(*candidates: Candidate, comparable: bool = True) -> tuple[list[LeaderboardRow], int]:
    """The candidates' rows, and the place among all rows at which the published one stands."""
    rows = rank(candidates, comparable=comparable)
    (place,) = [index for index, row in enumerate(rows) if row.is_reference]
    return [row for row in rows if not row.is_reference], place


def test_rank_by_accuracy_then_parameters_then_as_given() -> None:
    rows, _ = ranked(
        candidate("a", 90, 100, 500),
        candidate("b", 92, 100, 900),
        candidate("c", 180, 200, 400),
        candidate("#2", 92, 100, 800),
        candidate("#10", 92, 100, 800),
    )
    assert [row.name for row in rows] == ["#2", "#10", "b", "c", "a"]
    assert [row.rank for row in rows] == [1, 2, 3, 4, 5]


def test_the_published_row_has_the_published_numbers() -> None:
    (row,) = rank([], comparable=True)
    assert (row.is_reference, row.rank, row.run, row.seed) == (True, None, None, None)
    assert (row.params, row.macs) == (4_662_346, 793_446_912)
    assert (row.accuracy, row.images, row.gap) == (0.9141, 10_000, 0.0)
    assert row.interval == pytest.approx(wilson(9_141, 10_000), abs=1e-12)
    assert (row.exceeds_noise, row.compared_with) == (None, "published")


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_match_wilson_and_newcombe(count: tuple[int, int]) -> None:
    correct, images = count
    ((row,), _) = ranked(candidate("a", correct, images))
    share, low, high = correct / images, *wilson(correct, images)
    published, published_low, published_high = 0.9141, *wilson(9_141, 10_000)
    assert row.interval == pytest.approx((low, high), abs=1e-12)
    assert row.gap == pytest.approx(share - published, abs=1e-12)
    expected_low = row.gap - math.sqrt((share - low) ** 2 + (published_high - published) ** 2)
    expected_high = row.gap + math.sqrt((high - share) ** 2 + (published - published_low) ** 2)
    assert row.gap_interval == pytest.approx((expected_low, expected_high), abs=1e-12)
    # A validation accuracy against a test accuracy is shown, and decides nothing.
    assert (row.exceeds_noise, row.compared_with) == (None, "published")


def test_gap_intervals_are_simultaneous() -> None:
    alone = rank([candidate("0", 9_225)], comparable=True)[0]
    rows = rank([candidate(str(number), 9_225 - number) for number in range(20)], comparable=True)
    assert (alone.gap_interval.low > 0, rows[0].gap_interval.low > 0) == (True, False)
    assert rows[0].interval == alone.interval
    # Each of 20 intervals has the level at which all hold together at 95 %.
    share, published, level = 0.9225, 0.9141, 0.95 ** (1 / 20)
    low, _ = wilson(9_225, 10_000, level)
    _, high = wilson(9_141, 10_000, level)
    expected = share - published - math.hypot(share - low, high - published)
    assert rows[0].gap_interval.low == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("correct", "sign"), [(9_150, 1), (9_130, -1)])
def test_the_gap_has_the_sign_of_the_difference(correct: int, sign: int) -> None:
    ((row,), place) = ranked(candidate("a", correct))
    assert math.copysign(1, row.gap) == sign
    assert place == (1 if sign > 0 else 0)


def test_published_row_is_ranked_by_its_accuracy() -> None:
    rows, place = ranked(candidate("a", 9_300), candidate("b", 9_000), candidate("c", 9_200))
    assert [row.name for row in rows] == ["a", "c", "b"]
    assert place == 2
    assert ranked(candidate("equal", 9_141))[1] == 0


@pytest.mark.parametrize(("enqueued", "base"), [((), "a"), (("c",), "c"), (("d", "c"), "c")])
def test_on_other_images_gaps_are_to_the_best_enqueued_candidate_or_the_best(
    enqueued: tuple[str, ...], base: str
) -> None:
    correct = {"a": 290, "b": 280, "c": 270, "d": 200}
    entries = [candidate(name, count, 300)._replace(enqueued=name in enqueued) for name, count in correct.items()]
    rows = rank(entries, comparable=False)
    assert [row.name for row in rows] == ["a", "b", "c", "d"], "nothing published among them"
    assert rank([], comparable=False) == []
    level = 0.95 ** (1 / 4)
    for row in rows:
        assert row.compared_with == base
        share, other = correct[row.name] / 300, correct[base] / 300
        assert row.gap == pytest.approx(share - other)
        if row.name == base:
            assert (row.exceeds_noise, row.gap_interval) == (None, (0, 0))
            continue
        (low, high), (other_low, other_high) = wilson(correct[row.name], 300, level), wilson(correct[base], 300, level)
        expected = (
            share - other - math.hypot(share - low, other_high - other),
            share - other + math.hypot(high - share, other - other_low),
        )
        assert row.gap_interval == pytest.approx(expected, abs=1e-12)
        assert row.exceeds_noise is (expected[0] > 0 or expected[1] < 0)
    assert [row.exceeds_noise for row in rows].count(True) in (1, 2)


def test_rows_serialize_to_json() -> None:
    rows = rank([candidate("a", 9_300)], comparable=True)
    mappings: list[dict[str, Any]] = json.loads(json.dumps([row.to_mapping() for row in rows], allow_nan=False))
    assert {*mappings[0]} == {*LeaderboardRow._fields, "exceeds_noise"} - {"needs"}, "needs are beside the others"
    assert mappings[0]["rank"] == 1
    assert mappings[0]["accuracy"] == 0.93
    assert mappings[0]["interval"] == pytest.approx(wilson(9_300, 10_000))
    assert mappings[0]["gap_interval"][0] < mappings[0]["gap"] < mappings[0]["gap_interval"][1]
    assert (mappings[0]["run"], mappings[0]["seed"]) == ("run-a", 7)
    assert mappings[1]["is_reference"] is True


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits_every_terminal_width(width: int) -> None:
    architecture = "preact-72x2-144x2-144x2-216x1"
    rows = rank([candidate("#1", 9_600)._replace(architecture=architecture, params=4_250_980)], comparable=True)
    printed = io.StringIO()
    console = Console(file=printed, width=width)
    console.print(leaderboard_table(rows, title="title", width=width))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 12
    # The name and the MACs join this table with others, so they are shown at any width.
    parts = [architecture[:12], "#1", "96.00", "91.41", "published", "793.4M"]
    parts += ["4,250,980", "+4.59 [+3.92, +5.26]", "4,662,346"] if width == 120 else ["4.3M", "4.7M"]
    for part in parts:
        assert part in printed.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_architectures_are_broken_between_stages_only(width: int) -> None:
    architecture = "preact-72x2-144x2-144x2-216x1"
    printed = io.StringIO()
    rows = rank([candidate("#1", 9_600)._replace(architecture=architecture)], comparable=False)
    Console(file=printed, width=width).print(leaderboard_table(rows, title="", width=width))
    cells = [line.split("│")[3].strip() for line in printed.getvalue().splitlines() if line.startswith("│")]
    assert "".join(cells) == architecture
    assert all(cell.endswith("-") for cell in cells[:-1])


@pytest.mark.parametrize("width", [80, 120, 160])
def test_runs_with_long_names_have_their_accuracies_at_every_width(width: int) -> None:
    printed = io.StringIO()
    names = [f"preact-72x2-144x2-144x2-216x1-s{seed}-0123456789" for seed in range(2)]
    rows = rank([candidate(name, 9_600 - seed) for seed, name in enumerate(names)], comparable=False)
    Console(file=printed, width=width).print(leaderboard_table(rows, title="", width=width))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in printed.getvalue()
    assert all(text in printed.getvalue() for text in ("96.00", "95.99", "s1-"))


def test_false_positive_rate_of_best_of_many() -> None:
    images, accuracy, searches = 10_000, 0.9141, 600
    random = np.random.default_rng(0)
    published = random.binomial(images, accuracy, searches)
    best = random.binomial(images, accuracy, (searches, 20)).max(axis=1)
    called: dict[bool, int] = {True: 0, False: 0}
    for right, theirs in zip(best.tolist(), published.tolist(), strict=True):
        other = reference().model_copy(update={"accuracy": theirs / images})
        for among in called:
            # The others change nothing for the best one but how many there are.
            others = [candidate(str(number), 9_000) for number in range(19 if among else 0)]
            rows = rank([candidate("best", right), *others], comparable=True, reference=other)
            row = next(row for row in rows if row.name == "best")
            called[among] += row.gap_interval.low > 0
    assert called[True] <= 0.05 * searches, "nominal is 2.5 %"
    assert called[False] > 0.15 * searches, "without the allowance the simulation must show the fault"
