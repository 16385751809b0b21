"""Studies of several networks: runs and results, against scipy and Holm's procedure by hand."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import statsmodels.api as sm
from record_support import run_record
from report_support import STUDIES, every_outcome, report_of, text_of
from rich.console import Console
from scipy import stats

from budgetnet.cli.ablation_tables import changes_table
from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.experiments.ablation.changes import EFFECT_RULE, POOLED_RULE
from budgetnet.experiments.ablation.results import AblationResult, ablation_result
from budgetnet.experiments.ablation.running import planned_runs
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.statistics.intervals import Interval
from budgetnet.visualization.figures import (
    NetworkPoint,
    PooledRow,
    ablation_forest,
    ablation_rows,
    pooled_forest,
    pooled_rows,
)
from budgetnet.visualization.report import render

CIFAR: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
SMALL: dict[str, Any] = {"stem": {"channels": 8}, "stages": [{"channels": 8}, {"channels": 16, "stride": 2}]}
STUDY: dict[str, Any] = {
    "name": "two",
    "networks": {"basic": SMALL, "preact": {**SMALL, "block": "preact"}},
    "recipe": {},
    "options": {
        "nesterov": {"recipe.nesterov": True},
        "smooth": {"recipe.label_smoothing": 0.1},
        "decay": {"recipe.weight_decay": 0.001},
    },
    "design": "alone-and-leave-one-out",
    "seeds": [3, 5, 8, 9],
}
NAMES = [
    "base",
    "nesterov",
    "smooth",
    "decay",
    "all",
    "all without nesterov",
    "all without smooth",
    "all without decay",
]
BASES = {"basic": [7_000, 7_050, 7_100, 7_020], "preact": [7_400, 7_420, 7_510, 7_480]}
"""Correct answers of each base out of 10,000, by seed."""
NOISE = [[0, 0, 0, 0], [3, -2, 1, 4], [-40, 55, -35, 30], [2, 1, -3, 2], [4, -1, 2, 0], [0, 3, 1, -2], [9, -9, 8, -7]]
SHIFTS = {
    # By how many right answers a variant is above its network's base, without noise.
    "basic": [0, 200, 5, -150, 250, 60, 250, 420],
    "preact": [0, 190, 5, 160, 300, 340, 300, 150],
}


def counts_of(network: str, number: int) -> list[int]:
    """Right answers of a network's variant, by its place in `NAMES`."""
    noise = NOISE[number % len(NOISE)]
    return [base + SHIFTS[network][number] + each for base, each in zip(BASES[network], noise, strict=True)]


def result_of(study: AblationStudy, counts: Callable[[str, str], Sequence[int | None]]) -> AblationResult:
    """Build the result of a study from the number of correct images of each run, by network and variant."""
    variants = study.variants(**CIFAR)
    records = {
        variant.key: [
            run_record(seed=seed, spec=variant.spec, recipe=variant.recipe, validation_correct=count)
            for seed, count in zip(study.seeds, counts(variant.network, variant.name), strict=True)
        ]
        for variant in variants
        if variant.fits
    }
    return ablation_result(study, variants, records)


@pytest.fixture(scope="module")
def result() -> AblationResult:
    return result_of(AblationStudy.from_mapping(STUDY), lambda network, name: counts_of(network, NAMES.index(name)))


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


def holm_by_hand(p_values: dict[Any, float]) -> dict[Any, float]:
    """Holm (1979): the smallest times their number, the next times one fewer, and none below one before it."""
    corrected, least = {}, 0.0
    for rank, (key, p_value) in enumerate(sorted(p_values.items(), key=lambda each: each[1])):
        least = max(least, min(1.0, p_value * (len(p_values) - rank)))
        corrected[key] = least
    return corrected


def test_rows_match_scipy_and_holm(result: AblationResult) -> None:
    values = {(net, name): np.array(counts_of(net, i)) / 10_000 for net in BASES for i, name in enumerate(NAMES)}
    tests = {}
    for (network, name), own in values.items():
        if name != "base":
            other = "all" if name.startswith("all without") else "base"
            tests[network, name] = (other, own, stats.ttest_rel(own, values[network, other]))
    corrected = holm_by_hand({key: test.pvalue for key, (_, _, test) in tests.items()})
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


def differences_of(name: str, other: str) -> dict[str, npt.NDArray[np.float64]]:
    """Differences of two variants as shares, seed by seed, by network."""
    first, second = NAMES.index(name), NAMES.index(other)
    return {net: (np.array(counts_of(net, first)) - np.array(counts_of(net, second))) / 10_000 for net in BASES}


COMPARISONS = {
    ("nesterov", "alone"): ("nesterov", "base"),
    ("nesterov", "omitted"): ("all without nesterov", "all"),
    ("smooth", "alone"): ("smooth", "base"),
    ("smooth", "omitted"): ("all without smooth", "all"),
    ("decay", "alone"): ("decay", "base"),
    ("decay", "omitted"): ("all without decay", "all"),
    ("all", "alone"): ("all", "base"),
}


def test_pooled_comparisons_match_scipy_and_holm(result: AblationResult) -> None:
    expected = {}
    for key, names in COMPARISONS.items():
        observed = differences_of(*names)
        # Least squares on a dummy for each network; the mean of both coefficients.
        dummies = np.repeat(np.eye(2), 4, axis=0)
        fitted = sm.OLS(np.concatenate(list(observed.values())), dummies).fit()
        expected[key] = fitted.t_test(np.array([[0.5, 0.5]]))
    corrected = holm_by_hand({key: float(test.pvalue) for key, test in expected.items()})
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
        whole: list[int | None] = list(counts_of(network, NAMES.index(name)))
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
    one = result_of(study, lambda network, name: counts_of(network, NAMES.index(name)))
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


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_table_of_changes_fits_its_terminal(result: AblationResult, width: int) -> None:
    output = Console(width=width, file=io.StringIO())
    output.print(changes_table(result, output))
    assert isinstance(output.file, io.StringIO)
    text = output.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    (line,) = [line for line in text.splitlines() if "without it" in line and "-0.76 [" in line]
    assert ("preact" in text.split("verdict")[0].splitlines()[-1]) is (width > 80)
    assert ("+0.39 [" in line) is (width > 120)
    assert "pays, but not" in text


def test_a_change_without_a_result_is_not_settled_and_the_others_are_corrected_without_it() -> None:
    study = AblationStudy.from_mapping({**STUDY, "seeds": [3]})
    one = result_of(study, lambda network, name: counts_of(network, NAMES.index(name))[:1])
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


def test_json_csv_and_figure_match_rows(result: AblationResult) -> None:
    mapping = result.to_mapping()
    assert [(row["network"], row["variant"]) for row in mapping["rows"]] == [(n, v) for n in BASES for v in NAMES]
    assert [row["compared_with"] for row in mapping["rows"]][:8] == [None, *["base"] * 4, *["all"] * 3]
    assert (mapping["rule"], mapping["pooled_rule"]) == (EFFECT_RULE, POOLED_RULE)
    assert [(each["change"], each["verdict"]) for each in mapping["changes"]] == [
        (change.name, change.verdict) for change in result.changes
    ]
    decay = mapping["changes"][2]["networks"]["preact"]
    row = result.rows[8 + 7]
    assert row.difference is not None
    assert row.difference.interval is not None
    assert decay["omitted"] == {
        "difference": row.difference.mean,
        "interval": list(row.difference.interval),
        "holm_p_value": row.p_value,
    }
    assert mapping["changes"][3]["networks"]["basic"]["omitted"] is None
    pooled = result.changes[2].comparisons[1].pooled
    assert pooled is not None
    kept = mapping["changes"][2]["pooled"]["omitted"]
    assert kept == {
        "difference": pooled.difference.mean,
        "interval": list(pooled.difference.interval or ()),
        "p_value": pooled.difference.p_value,
        "holm_p_value": pooled.p_value,
        "significant": pooled.significant,
        "pairs": {"basic": 4, "preact": 4},
        "degrees_of_freedom": 6,
    }
    assert mapping["changes"][3]["pooled"]["omitted"] is None
    read = pd.read_csv(io.StringIO(result.to_csv()))
    assert read["network"].tolist() == [network for network in BASES for _ in NAMES]
    assert read["compared_with"].tolist()[4:6] == ["base", "all"]
    assert read["seed 8"].tolist() == pytest.approx([count / 10_000 for n in BASES for count in _third_seed(n)])
    assert (read["change"][7], read["verdict"][7]) == ("decay", "mixed")
    for place in (7, 15):
        columns = {"difference": kept["difference"], "low": kept["interval"][0], "high": kept["interval"][1]}
        columns |= {"pairs": 8, "degrees_of_freedom": 6, "p_value": kept["p_value"]}
        columns["holm_p_value"] = kept["holm_p_value"]
        assert {key: read[f"pooled_{key}"][place] for key in columns} == pytest.approx(columns)
    assert read["pooled_difference"].isna().tolist() == [number % 8 == 0 for number in range(16)]
    rows = ablation_rows(result)
    assert [each.name for each in rows[6:8]] == ["basic: all without decay", "preact: nesterov"]
    assert [each.compared_with for each in rows[:7]] == [*["base"] * 4, *["all"] * 3]


def test_the_figure_has_a_line_for_each_comparison_and_a_marker_for_each_network(result: AblationResult) -> None:
    rows = pooled_rows(result)
    pooled = [each.pooled for change in result.changes for each in change.comparisons]
    assert [row.name for row in rows[:2]] == ["nesterov, alone", "nesterov, without it"]
    assert (rows[-1].name, rows[-1].n, len(rows)) == ("all", 8, 7)
    figure = ablation_forest(result)
    traces = {trace.name: trace for trace in figure.data if trace.name != "interval"}
    assert list(traces) == ["all networks, beyond noise", "all networks, within noise", "basic", "preact"]
    for significant, name in ((True, "all networks, beyond noise"), (False, "all networks, within noise")):
        expected = [100 * each.difference.mean for each in pooled if each and each.significant is significant]
        assert list(traces[name].x) == pytest.approx(expected)
    ends = {end for trace in figure.data if trace.name == "interval" for end in trace.x if end is not None}
    assert ends == {100 * end for each in pooled if each for end in each.difference.interval or ()}
    for network in BASES:
        own = [differences_of(*names)[network].mean() * 100 for names in COMPARISONS.values()]
        assert list(traces[network].x) == pytest.approx(own)
    # All marks of a comparison lie in its own line of the page, and no two of them at one place.
    height = figure.layout.yaxis.range[0] / 7
    for number in range(7):
        places = [trace.y[number] for trace in (traces["basic"], traces["preact"])]
        assert len(set(places)) == 2
        assert all(number * height < place < (number + 1) * height for place in places)
    assert "preact: all without nesterov: +0.39 [" in traces["preact"].text[1]
    assert figure.layout.xaxis.range[0] < min(ends)
    assert figure.layout.meta["alt"].startswith(
        "Differences over all networks in 7 comparisons, in points of accuracy:"
    )


def test_a_figure_of_sixteen_options_is_no_longer_than_a_few_screens() -> None:
    point = NetworkPoint("<i>", "<i>: <b>x</b>", 0.01, None)
    rows = [PooledRow("<b>x</b>" * 9, "alone", 5, 0.01, Interval(0.0, 0.02), None, (point,)) for _ in range(33)]
    rows.append(PooledRow("nothing", "", 0, None, None, None, ()))
    figure = pooled_forest(rows, networks=["<i>"], title="t")
    assert figure.layout.height < 2_000
    words = [note.text for note in figure.layout.annotations]
    assert words[0] == f"<b>{'&lt;b&gt;x&lt;/b&gt;' * 2}&lt;b&gt;…</b>, alone"
    assert words[-1] == "no result"
    assert {trace.name for trace in figure.data} == {"interval", "all networks, no p-value", "&lt;i&gt;"}


def _third_seed(network: str) -> list[int]:
    return [counts_of(network, number)[2] for number in range(len(NAMES))]


def test_notebook_shows_networks_and_effects(result: AblationResult) -> None:
    html = result._repr_html_()
    assert html.count("<table") == 3
    assert "two, network preact" in html
    assert "pays, but not on preact" in html
    assert f"{EFFECT_RULE} {POOLED_RULE}".replace("'", "&#x27;") in html


def test_report_shows_networks_and_effects(result: AblationResult, tmp_path: Path) -> None:
    whole = report_of(every_outcome(tmp_path, name="study"), ablations=[STUDIES / "schedule"])
    shown = whole.ablations[0]._replace(result=result)
    text = text_of(render(whole._replace(ablations=(shown,))))
    assert "Network basic" in text
    assert "Network preact" in text
    # The decay on preact, omitted: all without it lose 151.25 of 10,000 images; with all other numbers beside it.
    low, high = stats.ttest_rel(*(counts_of("preact", number) for number in (7, 4))).confidence_interval()
    ends = f"[{low / 100:+.2f}, {high / 100:+.2f}]".replace("-", "\N{MINUS SIGN}")
    assert f"\N{MINUS SIGN}1.51 {ends} +0.09" in text, "then all networks: 168.75 and -151.25 are 8.75 on average"
    assert "pays, but not on preact" in text
    assert f"{EFFECT_RULE} {POOLED_RULE}" in text
    assert "p-values corrected over all differences on single networks" in text


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
