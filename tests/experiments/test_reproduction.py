"""Reproductions: verdicts against scipy and plain formulas, obstacles, leakage and ladder by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from record_support import data_record, run_record
from scipy import stats

from budgetnet.common.errors import BudgetnetError
from budgetnet.experiments.reproduction.ladder import ladder_result, rungs
from budgetnet.experiments.reproduction.leakage import leakage_result
from budgetnet.experiments.reproduction.reference import compare_with_table1, reference_result
from budgetnet.experiments.reproduction.verdict import SEED_UNKNOWN, VOUCHED_FOR, verdict
from budgetnet.model.published import get as published
from budgetnet.model.zoo import get
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import LEAKAGE_WARNING

AS_RUN = named_recipe("as-run")
COPY = {"is_original_cifar10": False, "name": "arrays:copy.npz"}


def test_the_reference_has_the_papers_layers() -> None:
    table = compare_with_table1(get("reference"))
    assert (table.rows, table.equal, table.params, table.published_params) == (44, 44, 4_662_346, 4_662_346)
    assert table.agrees


def test_a_layer_that_differs_is_counted() -> None:
    wider = get("reference").replace(channels=[64, 64, 128, 256, 258])
    # The last stage's eight layers but its block's line differ in their counts; the block in its shape alone.
    table = compare_with_table1(wider)
    assert (table.rows, table.equal, table.agrees) == (44, 44 - 8, False)
    longer = get("reference").replace(blocks=[2, 2, 1, 1, 2])
    assert (compare_with_table1(longer).rows, compare_with_table1(longer).agrees) == (44 + 5, False)


def by_hand(counts: list[int], accuracy: float = 0.9141, images: int = 10_000) -> tuple[float, float, float, float]:
    """Difference, its 95 % interval and p-value, with the published number's binomial noise (Welch)."""
    shares = [count / 10_000 for count in counts]
    mean = sum(shares) / len(shares)
    own = sum((share - mean) ** 2 for share in shares) / (len(shares) - 1) / len(shares)
    theirs = accuracy * (1 - accuracy) / images
    error = math.sqrt(own + theirs)
    freedom = (own + theirs) ** 2 / (own**2 / (len(shares) - 1))
    reach = stats.t.ppf(0.975, freedom) * error
    difference = mean - accuracy
    return difference, difference - reach, difference + reach, 2 * stats.t.sf(abs(difference) / error, freedom)


@pytest.mark.parametrize(
    ("counts", "outcome"),
    [
        ([9_120, 9_150, 9_133], "reproduced"),
        ([8_900, 8_950, 8_930], "not reproduced"),
        ([9_400, 9_420, 9_390, 9_410], "not reproduced"),
        ([8_700, 9_141, 9_500], "reproduced"),
    ],
)
def test_verdict_of_several_seeds_matches_formula(counts: list[int], outcome: str) -> None:
    records = [run_record(seed=seed, test_correct=count) for seed, count in enumerate(counts)]
    found = verdict(records, published("reference"), declared=False)
    comparison = found.comparison
    difference, low, high, p_value = by_hand(counts)
    assert (comparison.difference, *comparison.interval) == pytest.approx((difference, low, high), abs=1e-12)
    assert comparison.p_value == pytest.approx(p_value, rel=1e-9)
    assert (found.outcome, found.reasons, found.remarks) == (outcome, (), (SEED_UNKNOWN,))
    assert (p_value < 0.05) == (outcome == "not reproduced")
    assert found.exit_code == (4 if outcome == "not reproduced" else 0)


def test_a_single_run_is_compared_as_a_proportion() -> None:
    found = verdict([run_record(test_correct=9_000)], published("reference"), declared=False)
    pooled = (9_000 + 9_141) / 20_000
    z = (9_141 - 9_000) / 10_000 / math.sqrt(pooled * (1 - pooled) * 2 / 10_000)
    assert found.comparison.p_value == pytest.approx(2 * stats.norm.sf(z), rel=1e-6)
    assert found.outcome == "not reproduced"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": data_record(**COPY)}, "the images are not original CIFAR-10 but arrays:copy.npz"),
        ({"data": data_record(train_images=2_000)}, "trained and validated on 12,000 images"),
        (
            {"spec": get("wrn-16-4")},
            "the network, for images of 3x32x32 in 10 classes, is not the published one, reference",
        ),
        ({"recipe": named_recipe("paper").with_epochs(2)}, "the recipe is neither paper nor as-run"),
        ({"recipe": named_recipe("modern")}, "the recipe is neither paper nor as-run"),
    ],
)
def test_differences_make_the_result_not_comparable(changes: dict[str, Any], reason: str) -> None:
    found = verdict([run_record(test_correct=5_000, **changes)], published("reference"), declared=False)
    assert found.outcome == "not comparable"
    assert [text.startswith(reason) for text in found.reasons] == [True]
    assert found.exit_code == 0
    assert found.comparison.mean == 0.5


def test_declared_copy_is_comparable_with_a_remark() -> None:
    copy = [run_record(data=data_record(**COPY), test_correct=9_130)]
    assert verdict(copy, published("reference"), declared=False).outcome == "not comparable"
    vouched = verdict(copy, published("reference"), declared=True)
    assert (vouched.outcome, vouched.reasons) == ("reproduced", ())
    assert vouched.remarks == (VOUCHED_FOR, SEED_UNKNOWN)
    original = verdict([run_record(test_correct=9_130)], published("reference"), declared=True)
    assert VOUCHED_FOR not in original.remarks


def test_recipe_as_run_is_comparable_and_marked_as_leaking() -> None:
    found = verdict([run_record(recipe=AS_RUN)], published("reference"), declared=False)
    assert (found.outcome, found.remarks) == ("reproduced", (LEAKAGE_WARNING, SEED_UNKNOWN))


def test_runs_without_result_are_omitted_with_a_remark() -> None:
    records = [run_record(seed=0, validation_correct=None), run_record(seed=1)]
    result = reference_result(records, declared=False)
    assert result.verdict.comparison.n == 1
    assert "1 of 2 runs have no result" in result.verdict.remarks
    assert [(row.seed, row.test_accuracy, row.gap) for row in result.rows] == [
        (0, None, None),
        (1, 0.9141, pytest.approx(0.9 - 0.9141)),
    ]
    assert (result.loss, result.published.loss) == (0.25, 0.315)
    with pytest.raises(BudgetnetError, match="none of 1 runs has a test result"):
        reference_result(records[:1], declared=False)


def test_leakage_is_the_paired_difference_of_gaps() -> None:
    leaking = [(9_700, 9_100), (9_800, 9_150), (9_750, 9_000)]
    sound = [(9_050, 9_020), (9_100, 9_080), (9_000, 9_010)]

    def records(counts: list[tuple[int, int]], name: str) -> list[Any]:
        return [
            run_record(seed=seed, validation_correct=one, test_correct=other, recipe=named_recipe(name))
            for seed, (one, other) in enumerate(counts)
        ]

    result = leakage_result(records(leaking, "as-run"), records(sound, "paper"))
    gaps = [[(one - other) / 10_000 for one, other in counts] for counts in (leaking, sound)]
    assert [side.gap for side in result.sides] == pytest.approx([sum(each) / 3 for each in gaps])
    assert [(side.recipe, side.leaks, side.n) for side in result.sides] == [("as-run", True, 3), ("paper", False, 3)]
    assert result.sides[0].train_accuracy == pytest.approx(0.92)
    expected = stats.ttest_rel(*gaps)
    interval = expected.confidence_interval()
    assert result.difference.p_value == pytest.approx(expected.pvalue)
    assert result.difference.interval == pytest.approx((interval.low, interval.high))
    own = stats.ttest_1samp(gaps[0], 0).confidence_interval()
    assert result.sides[0].gap_interval == pytest.approx((own.low, own.high))
    assert result.published_gap == pytest.approx(0.9798 - 0.9141)
    assert [row["gap"] for row in result.to_mapping()["runs"]] == pytest.approx([*gaps[0], *gaps[1]])


def test_equal_seeds_have_no_interval() -> None:
    leaking = [run_record(seed=seed, recipe=AS_RUN, validation_correct=9_700) for seed in range(3)]
    sound = [run_record(seed=seed, validation_correct=9_000 + seed) for seed in range(3)]
    result = leakage_result(leaking, sound)
    assert result.sides[0].gap_interval is None
    assert result.sides[1].gap_interval is not None


def test_diverged_seed_is_not_paired() -> None:
    leaking = [run_record(seed=0, recipe=AS_RUN, validation_correct=None), run_record(seed=1, recipe=AS_RUN)]
    sound = [run_record(seed=0), run_record(seed=1)]
    result = leakage_result(leaking, sound)
    assert (result.sides[0].n, result.difference.n, result.difference.p_value, len(result.rows)) == (1, 1, None, 4)
    with pytest.raises(BudgetnetError, match="no seed has results of both recipes"):
        leakage_result(leaking[:1], sound[:1])


def ladder(*counts: list[int]) -> list[list[Any]]:
    return [
        [run_record(seed=seed, test_correct=count, spec=get(rung.known_spec)) for seed, count in enumerate(row)]
        for rung, row in zip(rungs(), counts, strict=True)
    ]


def test_steps_are_paired_differences_with_holm() -> None:
    counts = [[7_900, 7_950, 7_880], [8_890, 8_930, 8_910], [8_900, 8_990, 8_950], [9_100, 9_150, 9_130]]
    result = ladder_result(ladder(*counts), declared=False)
    assert [rung.published.name for rung in result.rungs] == [
        "ladder-small",
        "ladder-wide",
        "ladder-large-kernel",
        "reference",
    ]
    assert [rung.params for rung in result.rungs] == [2_630_218, 4_903_242, 4_243_786, 4_662_346]
    assert [rung.test_accuracy for rung in result.rungs] == pytest.approx([sum(row) / 30_000 for row in counts])
    assert result.same_order
    tests = [stats.ttest_rel(higher, lower) for lower, higher in pairwise(counts)]
    steps = [rung.step for rung in result.rungs[1:]]
    assert result.rungs[0].step is None
    for step, test in zip(steps, tests, strict=True):
        assert step is not None
        assert step.difference.p_value == pytest.approx(test.pvalue)
    assert [step.published for step in steps if step] == pytest.approx([0.10, 0.01, 0.0141])
    ordered = sorted(test.pvalue for test in tests)
    holm = [min(1, 3 * ordered[0])]
    holm.append(max(holm[0], min(1, 2 * ordered[1])))
    holm.append(max(holm[1], ordered[2]))
    assert sorted(step.p_value or 0 for step in steps if step) == pytest.approx(holm)


def test_rungs_without_common_seed_have_no_step() -> None:
    runs = ladder([7_900, 7_950], [8_900, 8_930], [8_950, 8_990], [9_141, 9_150])
    runs[1][0] = run_record(seed=0, spec=runs[1][0].identity.spec, validation_correct=None)
    runs[2][1] = run_record(seed=1, spec=runs[2][1].identity.spec, validation_correct=None)
    steps = [rung.step for rung in ladder_result(runs, declared=False).rungs]
    assert [step is None for step in steps] == [True, False, True, False]
    assert [step.difference.n for step in steps if step] == [1, 1]


def test_decreasing_rung_breaks_the_order() -> None:
    result = ladder_result(ladder([7_900], [8_900], [8_800], [9_141]), declared=False)
    assert not result.same_order
    assert [rung.step.p_value if rung.step else None for rung in result.rungs] == [None] * 4
    assert [rung.interval for rung in result.rungs] == [None] * 4
    assert [rung.verdict.outcome for rung in result.rungs] == ["not comparable"] * 3 + ["reproduced"]
    assert result.rungs[0].verdict.reasons == ("the published accuracy is only known to be about 79 %",)
