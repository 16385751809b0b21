"""Results of an ablation from records, against scipy, statsmodels and hand calculations."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from record_support import run_record
from scipy import stats
from statsmodels.stats.multitest import multipletests

from budgetnet.common.errors import OverBudgetError
from budgetnet.experiments.ablation.results import AblationResult, ablation_result
from budgetnet.experiments.ablation.study import AblationStudy

STUDY: dict[str, Any] = {
    "name": "widths",
    "spec": "reference",
    "recipe": "paper",
    "factors": {"spec.stages[4].channels": [256, 128, 200, 400]},
    "budget": {"max_params": 5_000_000},
    "seeds": [3, 5, 8, 9],
}
COUNTS = {
    "base": [9_000, 9_050, 9_100, 9_020],
    "stages[4].channels=128": [8_900, 8_930, 8_990, 8_905],
    "stages[4].channels=200": [9_010, 9_030, 9_120, 9_000],
}


def result_of(counts: dict[str, list[int | None]] | None = None, **changes: Any) -> AblationResult:
    """The result of a study whose runs had so many validation images right; None for one that diverged."""
    method = changes.pop("method", "t")
    study = AblationStudy.from_mapping({**STUDY, **changes})
    variants = study.variants(input_shape=(3, 32, 32), num_classes=10)
    given: dict[str, list[int | None]] = counts or {name: list(row) for name, row in COUNTS.items()}
    records = {
        variant.key: [
            run_record(
                seed=seed, spec=variant.spec, recipe=variant.recipe, validation_correct=count, test_correct=9_500 - seed
            )
            for seed, count in zip(study.seeds, given[variant.name], strict=False)
        ]
        for variant in variants
        if variant.name in given
    }
    return ablation_result(study, variants, records, method=method)


def test_differences_are_paired_by_seed() -> None:
    result = result_of()
    base, narrow, nearly, wide = result.rows
    values = {name: np.array(row) / 10_000 for name, row in COUNTS.items()}
    tests = []
    for row in (base, narrow, nearly):
        own = values[row.variant.name]
        assert row.n == 4
        assert row.mean == pytest.approx(own.mean())
        assert row.standard_deviation == pytest.approx(own.std(ddof=1))
        assert [(cell.seed, cell.accuracy) for cell in row.cells] == list(zip([3, 5, 8, 9], own, strict=True))
        if row is base:
            continue
        test = stats.ttest_rel(own, values["base"])
        interval = test.confidence_interval()
        assert row.difference is not None
        assert row.difference.mean == pytest.approx((own - values["base"]).mean())
        assert row.difference.interval == pytest.approx((interval.low, interval.high))
        assert row.difference.p_value == pytest.approx(test.pvalue)
        tests.append(test.pvalue)
    corrected = multipletests(tests, method="holm")[1]
    assert [narrow.p_value, nearly.p_value] == pytest.approx(list(corrected))
    assert [narrow.significant, nearly.significant, base.significant] == [True, False, None]
    assert repr(result) == f"AblationResult({result.study.name}: 4 variants, 12 runs, 1 beyond noise)"
    assert (base.difference, base.p_value, base.variant.is_base) == (None, None, True)
    # 256 to 400 channels in the last stage: 144 more of 5x5 from 256, of 3x3 and 1x1, of three norms and a classifier.
    more = 144 * 256 * 25 + 9 * (400**2 - 256**2) + 144 * 256 + 144 * 6 + 144 * 10
    assert wide.variant.spec.params == 4_662_346 + more
    assert (wide.n, wide.mean, wide.difference, wide.cells) == (0, None, None, ())
    assert wide.remark == f"over budget, not trained: {4_662_346 + more:,} of 5,000,000 params"


def test_bootstrap_method() -> None:
    rows = result_of(method="bootstrap").rows
    assert [row.difference.method for row in rows if row.difference] == ["bootstrap", "bootstrap"]


def test_runs_without_result_are_not_paired() -> None:
    broken: dict[str, list[int | None]] = {name: list(row) for name, row in COUNTS.items()}
    broken["stages[4].channels=128"][1] = None
    broken["base"][0] = None
    row = result_of(broken).rows[1]
    assert row.difference is not None
    assert (row.n, row.difference.n, row.remark) == (3, 2, "1 of 4 runs have no result")
    expected = np.array([8_990 - 9_100, 8_905 - 9_020]) / 10_000
    assert row.difference.mean == pytest.approx(expected.mean())
    broken["stages[4].channels=128"] = [8_900, None, None, None]
    row = result_of(broken).rows[1]
    assert (row.difference, row.p_value, row.significant) == (None, None, None), "no seed has both"


def test_test_accuracies_are_used_if_evaluated_on_test() -> None:
    row = result_of(judged_on="test").rows[0]
    assert [cell.accuracy for cell in row.cells] == [0.9497, 0.9495, 0.9492, 0.9491]


def test_table_and_csv_match_rows() -> None:
    result = result_of()
    frame = result.frame()
    assert list(frame["variant"]) == [row.variant.name for row in result.rows]
    assert frame["params"].tolist() == [row.variant.spec.params for row in result.rows]
    assert frame.loc[1, "seed 8"] == 0.899
    difference = result.rows[1].difference
    assert difference is not None
    assert [frame["low"][1], frame["high"][1]] == pytest.approx(difference.interval)
    read = pd.read_csv(io.StringIO(result.to_csv()))
    assert list(read.columns) == list(frame.columns)
    assert read["mean"].tolist()[:3] == pytest.approx([row.mean for row in result.rows[:3]])
    assert read["remark"][3].startswith("over budget")
    mapping = result.to_mapping()
    assert [row["runs"] for row in mapping["rows"]][3] == []
    assert mapping["seeds"] == [3, 5, 8, 9]


def test_base_over_budget_is_not_compared() -> None:
    study = AblationStudy.from_mapping({**STUDY, "budget": {"max_params": 4_000_000}})
    base = study.variants(input_shape=(3, 32, 32), num_classes=10)[0]
    assert not base.fits
    with pytest.raises(OverBudgetError):
        base.verdict.require()
