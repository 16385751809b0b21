"""Studies of several networks: runs and results, against scipy and statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from ablation_support import BASES, CIFAR, COMPARISONS, NAMES, SMALL, STUDY, counts_of, differences_of, result_of
from scipy import stats
from statsmodels.stats.multitest import multipletests

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.experiments.ablation.results import AblationResult
from budgetnet.experiments.ablation.running import planned_runs
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe


@pytest.fixture(scope="module")
def result() -> AblationResult:
    return result_of(AblationStudy.from_mapping(STUDY), counts_of)


def test_every_network_has_all_variants_and_seeds() -> None:
    study = AblationStudy.from_mapping(STUDY)
    variants = study.variants(**CIFAR)
    assert [(each.network, each.name) for each in variants] == [(net, name) for net in BASES for name in NAMES]
    assert variants[1].title == "basic: nesterov"
    basic, preact = (ModelSpec.resnet(channels=[8, 16], block=block) for block in ("basic", "preact"))
    assert [each.spec.digest for each in variants] == 8 * [basic.digest] + 8 * [preact.digest]
    for each, other in zip(variants[:8], variants[8:], strict=True):
        assert each.recipe == other.recipe
    runs = planned_runs(study, variants)
    assert [run.seed for run in runs] == [seed for seed in (3, 5, 8, 9) for _ in range(16)]
    assert len({(run.spec.digest, run.recipe.digest, run.seed) for run in runs}) == 2 * 8 * 4


def test_changes_override_each_network() -> None:
    changes = {"spec.stages[1].channels": 24, "recipe.momentum": 0.8}
    study = AblationStudy.from_mapping({**STUDY, "changes": changes})
    widths = [[stage.channels for stage in base.spec.stages] for base in study.bases.values()]
    assert (widths, study.base_recipe) == ([[8, 24], [8, 24]], Recipe(momentum=0.8))
    one = AblationStudy.from_mapping({**STUDY, "networks": {"basic": SMALL}})
    plain = AblationStudy.from_mapping({**STUDY, "networks": {}, "spec": SMALL})
    assert one.digest == plain.digest != AblationStudy.from_mapping(STUDY).digest
    turned = dict(reversed(STUDY["networks"].items()))
    assert AblationStudy.from_mapping({**STUDY, "networks": turned}).digest == AblationStudy.from_mapping(STUDY).digest
    assert AblationStudy.from_mapping(study.to_mapping()) == study


def corrected_by_holm(p_values: dict[Any, float]) -> dict[Any, float]:
    return dict(zip(p_values, multipletests(list(p_values.values()), method="holm")[1].tolist(), strict=True))


def test_rows_match_scipy_and_holm(result: AblationResult) -> None:
    values = {(net, name): np.array(counts_of(net, name)) / 10_000 for net in BASES for name in NAMES}
    tests = {}
    for (network, name), own in values.items():
        if name != "base":
            other = "all" if name.startswith("all without") else "base"
            tests[network, name] = (other, own, stats.ttest_rel(own, values[network, other]))
    corrected = corrected_by_holm({key: test.pvalue for key, (_, _, test) in tests.items()})
    assert len(corrected) == 2 * 7
    for row in result.rows:
        key = row.variant.network, row.variant.name
        if key not in tests:
            assert (row.variant.is_base, row.variant.compared_with, row.difference) == (True, "", None)
            continue
        other, own, test = tests[key]
        assert row.variant.compared_with == other
        assert row.difference is not None
        assert row.difference.mean == pytest.approx((own - values[key[0], other]).mean())
        assert row.difference.interval == pytest.approx(tuple(test.confidence_interval()))
        assert row.p_value == pytest.approx(corrected[key])


def test_pooled_comparisons_match_scipy_and_holm(result: AblationResult) -> None:
    expected = {}
    for key, names in COMPARISONS.items():
        observed = differences_of(*names)
        # Least squares on a dummy for each network; the mean of both coefficients.
        dummies = np.repeat(np.eye(2), 4, axis=0)
        fitted = sm.OLS(np.concatenate(list(observed.values())), dummies).fit()
        expected[key] = fitted.t_test(np.array([[0.5, 0.5]]))
    corrected = corrected_by_holm({key: float(test.pvalue) for key, test in expected.items()})
    found = {(change.name, each.kind): each.pooled for change in result.changes for each in change.comparisons}
    assert found.keys() == expected.keys()
    for key, pooled in found.items():
        assert pooled is not None
        assert pooled.networks == ("basic", "preact")
        assert (pooled.difference.pairs, pooled.difference.degrees_of_freedom) == ((4, 4), 6)
        assert pooled.difference.mean == pytest.approx(float(expected[key].effect[0]))
        assert pooled.difference.interval == pytest.approx(tuple(expected[key].conf_int()[0]))
        assert pooled.p_value == pytest.approx(corrected[key])
        assert pooled.significant is (corrected[key] < 0.05)


def test_effect_of_each_change_over_all_networks(result: AblationResult) -> None:
    # Of 10,000 images: Nesterov gains 201.5 and 191.5 alone; without it all lose 190.75 on basic and gain 39.25 on
    # preact, which is a loss of 75.75 over both. The decay loses 149.5 alone on basic and gains 160.5 on preact, so it
    # gains 5.5 over both; without it all gain 168.75 and lose 151.25, so they gain 8.75. All options gain 251.25 and
    # 301.25. No spread exceeds 9 but that of smoothing alone.
    assert [(change.name, change.effect, change.verdict) for change in result.changes] == [
        ("nesterov", "pays", "pays, but not on preact"),
        ("smooth", "not settled", "not settled"),
        ("decay", "mixed", "mixed"),
        ("all", "pays", "pays"),
    ]
    assert [[each.kind for each in change.comparisons] for change in result.changes] == [
        *[["alone", "omitted"]] * 3,
        ["alone"],
    ]
    assert result.changes[2].comparisons[1].rows["preact"].variant.name == "all without decay"


def shifted(gains: dict[tuple[str, str], int]) -> AblationResult:
    """Build a result where variants of a network have a given number of correct images above its base, plus noise."""

    def counts(network: str, name: str) -> list[int]:
        return [7_000 + gains.get((network, name), 0) + (seed * len(name)) % 5 for seed in range(4)]

    return result_of(AblationStudy.from_mapping(STUDY), counts)


@pytest.mark.parametrize(
    ("alone", "without", "verdict"),
    [
        ((100, 100), (-100, -100), "pays"),
        ((-100, -100), (100, 100), "costs"),
        ((100, 100), (100, 100), "mixed"),
        ((-100, -100), (-100, -100), "mixed"),
        ((100, 100), (0, 0), "pays"),
        ((0, 0), (-100, -100), "pays"),
        ((0, 0), (100, 100), "costs"),
        ((300, -100), (-100, -100), "pays, but not on preact"),
        ((-300, 100), (100, 100), "costs, but not on preact"),
        ((100, 100), (100, -300), "pays, but not on basic"),
        ((100, -100), (0, 0), "not settled"),
    ],
)
def test_effect_combines_both_comparisons(alone: tuple[int, int], without: tuple[int, int], verdict: str) -> None:
    gains = {(net, "nesterov"): gain for net, gain in zip(BASES, alone, strict=True)}
    gains |= {(net, "all without nesterov"): gain for net, gain in zip(BASES, without, strict=True)}
    assert shifted(gains).changes[0].verdict == verdict


def test_seeds_without_a_result_are_missing_from_their_network_alone() -> None:
    study = AblationStudy.from_mapping(STUDY)

    def counts(network: str, name: str) -> list[int | None]:
        whole: list[int | None] = list(counts_of(network, name))
        return [None, *whole[1:]] if (network, name) == ("basic", "nesterov") else whole

    pooled = result_of(study, counts).changes[0].comparisons[0].pooled
    assert pooled is not None
    assert (pooled.difference.pairs, pooled.difference.degrees_of_freedom) == ((3, 4), 5)
    observed = differences_of("nesterov", "base")
    assert pooled.difference.mean == pytest.approx((observed["basic"][1:].mean() + observed["preact"].mean()) / 2)
    never = result_of(study, lambda net, name: [None] * 4 if net == "basic" else list(counts(net, name)))
    assert [change.verdict for change in never.changes] == [
        "mixed; not compared on basic",
        "not settled; not compared on basic",
        "pays; not compared on basic",
        "pays; not compared on basic",
    ]
    (change, *_) = never.to_mapping()["changes"]
    assert change["pooled"]["alone"]["pairs"] == {"preact": 4}


def test_one_network_is_not_pooled() -> None:
    study = AblationStudy.from_mapping({**STUDY, "networks": {"basic": SMALL}})
    one = result_of(study, counts_of)
    assert {each.pooled for change in one.changes for each in change.comparisons} == {None}
    assert {change.name: change.verdict for change in one.changes} == {
        "nesterov": "pays",
        "smooth": "not settled",
        "decay": "costs",
        "all": "pays",
    }
    mapping = one.to_mapping()
    assert not {"pooled_rule"} & mapping.keys()
    assert mapping["changes"][0].keys() == {"change", "networks", "effect", "verdict"}
    assert not [column for column in one.frame().columns if column.startswith("pooled")]


def test_a_change_without_a_result_is_not_settled_and_the_others_are_corrected_without_it() -> None:
    study = AblationStudy.from_mapping({**STUDY, "seeds": [3]})
    one = result_of(study, lambda network, name: counts_of(network, name)[:1])
    assert {change.verdict for change in one.changes} == {"not settled"}
    assert all(row.difference and row.difference.n == 1 for row in one.rows if not row.variant.is_base)


def test_omission_from_over_budget_variant_is_not_compared() -> None:
    options = {"wide": {"spec.stages[1].channels": 64}, "deep": {"spec.stages[1].blocks": 3}}
    study = AblationStudy.from_mapping({**STUDY, "options": options, "budget": {"max_params": "60k"}})
    rows = {row.variant.title: row for row in result_of(study, lambda *_: [7_000, 7_001, 7_002, 7_003]).rows}
    assert not rows["basic: all"].variant.fits
    assert rows["basic: all without wide"].remark == "not compared: all is over budget"
    assert rows["basic: all without wide"].difference is None
    assert rows["basic: deep"].difference is not None


def test_a_study_of_one_network_and_factors_keeps_its_shape() -> None:
    mapping = {**STUDY, "networks": {}, "options": {}, "spec": SMALL, "factors": {"recipe.momentum": [0.8]}}
    study = AblationStudy.from_mapping({**mapping, "design": "one-at-a-time"})
    plain = result_of(study, lambda _, name: [7_000, 7_001, 7_002, 7_003 if name == "base" else 7_004])
    kept = plain.to_mapping()
    assert kept.keys() == {"ablation", "digest", "design", "judged_on", "seeds", "rows"}
    assert not {"network", "compared_with"} & kept["rows"][1].keys()
    assert not {"network", "compared_with", "change", "verdict"} & set(plain.frame().columns)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"networks": {}}, "spec = None: missing field; several networks go under networks"),
        ({"spec": "resnet20"}, "networks = ['basic', 'preact']: must be given in place of spec, not beside it"),
        ({"networks": [1]}, "networks = [1]: must be a mapping of short names to networks"),
        (
            {"networks": {"a b": SMALL}},
            "networks.'a b' = {'stages': [{...}, {...}], 'stem': {'channels': 8}}: must have a name of 1 to 30",
        ),
        ({"networks": {"a": "refrence"}}, "networks.a = 'refrence': no such network, and no such file; did you mean"),
        ({"networks": {"a": {"stages": [{"channels": 0}]}}}, "networks.a.stages[0].channels = 0: must be at least 1"),
        ({"networks": {"a": SMALL, "b": {**SMALL, "name": "x"}}}, "networks.b = 'x': is the same network as a"),
        ({"changes": {"spec": "resnet20"}}, "changes.spec = 'a specification': would give all networks the same"),
        (
            {"options": {"a": {"spec": "resnet20"}}, "design": "one-at-a-time"},
            "options.a.spec = 'a specification': wou",
        ),
        (
            {"networks": {"a": SMALL, "b": {"stages": [{"channels": 8}]}}, "changes": {"spec.stages[1].blocks": 2}},
            "spec.stages[1].blocks = 2: does not exist: spec.stages has 1 entries, counted from 0 (in the network b)",
        ),
        (
            {"options": {"a": {"spec.block": "preact"}}, "design": "one-at-a-time"},
            "options.a = {'spec.block': 'preact'}: changes nothing in the base (in the network preact)",
        ),
        (
            {
                "options": {},
                "design": "one-at-a-time",
                "factors": {"recipe.batch_size": list(range(2, 600))},
            },
            "factors = 1198: must give at most 1,000 variants",
        ),
    ],
)
def test_invalid_study_of_networks_gives_one_line(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        AblationStudy.from_mapping({**STUDY, **fields})
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)
