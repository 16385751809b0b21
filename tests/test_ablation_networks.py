"""Studies of several networks: what they train, and what their results say, against scipy and Holm's rule by hand."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from record_support import run_record
from report_support import STUDIES, every_fate, report_of, text_of
from scipy import stats

from budgetnet.ablation import AblationStudy
from budgetnet.ablation.changes import EFFECT_RULE
from budgetnet.ablation.results import AblationResult, ablation_result
from budgetnet.batch import planned
from budgetnet.errors import InputError
from budgetnet.figures.ablation import ablation_forest, ablation_rows
from budgetnet.recipe import Recipe
from budgetnet.report import render
from budgetnet.spec import ModelSpec

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
"""Right answers of each base, of 10,000 images, seed by seed."""
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


def result_of(study: AblationStudy, counts: Callable[[str, str], list[int]]) -> AblationResult:
    """The result of a study whose runs have so many images right, by network and variant."""
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


def test_everything_is_trained_for_each_network_with_the_same_seeds() -> None:
    study = AblationStudy.from_mapping(STUDY)
    variants = study.variants(**CIFAR)
    assert [(each.network, each.name) for each in variants] == [(net, name) for net in BASES for name in NAMES]
    assert variants[1].title == "basic: nesterov"
    basic, preact = (ModelSpec.resnet(channels=[8, 16], block=block) for block in ("basic", "preact"))
    assert [each.spec.digest for each in variants] == 8 * [basic.digest] + 8 * [preact.digest]
    for each, other in zip(variants[:8], variants[8:], strict=True):
        assert each.recipe == other.recipe
    runs = planned(study, variants)
    assert [run.seed for run in runs] == [seed for seed in (3, 5, 8, 9) for _ in range(16)]
    assert len({(run.spec.digest, run.recipe.digest, run.seed) for run in runs}) == 2 * 8 * 4


def test_changes_are_laid_over_each_network_and_one_network_is_a_plain_study() -> None:
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


def test_each_row_is_compared_with_what_it_names_and_corrected_with_all(result: AblationResult) -> None:
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


def test_what_each_change_is_worth_is_said_for_every_network(result: AblationResult) -> None:
    found = {change.name: change for change in result.changes}
    # Of 10,000 images: Nesterov gains 201.5 and 191.5 alone; without it all lose 190.75 on basic and gain 39.25 on
    # preact. The decay loses 149.5 alone on basic and gains 160.5 on preact; without it all gain 168.75 and lose
    # 151.25. All options gain 251.25 and 301.25. None of these scatters by more than 9.
    assert list(found) == ["nesterov", "smooth", "decay", "all"]
    assert {name: change.verdict for name, change in found.items()} == {
        "nesterov": "pays on basic only; mixed on preact",
        "smooth": "not settled",
        "decay": "pays on preact only; costs on basic",
        "all": "pays on all",
    }
    assert found["all"].omitted == {}
    assert found["decay"].omitted["preact"].variant.name == "all without decay"
    assert [found["nesterov"].effect(network) for network in ("basic", "preact")] == ["pays", "mixed"]


def test_a_change_without_a_result_is_not_settled_and_the_others_are_corrected_without_it() -> None:
    study = AblationStudy.from_mapping({**STUDY, "seeds": [3]})
    one = result_of(study, lambda network, name: counts_of(network, NAMES.index(name))[:1])
    assert {change.verdict for change in one.changes} == {"not settled"}
    assert all(row.difference and row.difference.n == 1 for row in one.rows if not row.variant.is_base)


def test_an_omission_from_what_is_over_budget_is_compared_with_nothing() -> None:
    options = {"wide": {"spec.stages[1].channels": 64}, "deep": {"spec.stages[1].blocks": 3}}
    study = AblationStudy.from_mapping({**STUDY, "options": options, "budget": {"max_params": "60k"}})
    rows = {row.variant.title: row for row in result_of(study, lambda *_: [7_000, 7_001, 7_002, 7_003]).rows}
    assert not rows["basic: all"].variant.fits
    assert rows["basic: all without wide"].remark == "compared with nothing: all is over budget"
    assert rows["basic: all without wide"].difference is None
    assert rows["basic: deep"].difference is not None


def test_json_csv_and_figure_say_what_the_rows_say(result: AblationResult) -> None:
    mapping = result.to_mapping()
    assert [(row["network"], row["variant"]) for row in mapping["rows"]] == [(n, v) for n in BASES for v in NAMES]
    assert [row["compared_with"] for row in mapping["rows"]][:8] == [None, *["base"] * 4, *["all"] * 3]
    assert mapping["rule"] == EFFECT_RULE
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
    assert (decay["effect"], mapping["changes"][3]["networks"]["basic"]["omitted"]) == ("pays", None)
    read = pd.read_csv(io.StringIO(result.to_csv()))
    assert read["network"].tolist() == [network for network in BASES for _ in NAMES]
    assert read["compared_with"].tolist()[4:6] == ["base", "all"]
    assert read["seed 8"].tolist() == pytest.approx([count / 10_000 for n in BASES for count in _third_seed(n)])
    assert (read["change"][7], read["verdict"][7]) == ("decay", "pays on preact only; costs on basic")
    rows = ablation_rows(result)
    assert [each.name for each in rows[6:8]] == ["basic: all without decay", "preact: nesterov"]
    assert [each.compared_with for each in rows[:7]] == [*["base"] * 4, *["all"] * 3]
    figure = ablation_forest(result)
    assert figure.layout.meta["alt"].startswith("Differences of 14 variants to what each is compared with")
    assert sum(note.text.endswith(", to all") for note in figure.layout.annotations) == 6


def _third_seed(network: str) -> list[int]:
    return [counts_of(network, number)[2] for number in range(len(NAMES))]


def test_a_notebook_shows_every_network_and_what_each_change_is_worth(result: AblationResult) -> None:
    html = result._repr_html_()
    assert html.count("<table") == 3
    assert "two, network preact" in html
    assert "pays on preact only; costs on basic" in html
    assert EFFECT_RULE in html


def test_a_report_shows_every_network_and_what_each_change_is_worth(result: AblationResult, tmp_path: Path) -> None:
    whole = report_of(every_fate(tmp_path, name="study"), ablations=[STUDIES / "schedule"])
    shown = whole.ablations[0]._replace(result=result)
    text = text_of(render(whole._replace(ablations=(shown,))))
    assert "Network basic" in text
    assert "Network preact" in text
    # The decay on preact, omitted: all without it lose 151.25 of 10,000 images; with all other numbers beside it.
    low, high = stats.ttest_rel(*(counts_of("preact", number) for number in (7, 4))).confidence_interval()
    ends = f"[{low / 100:+.2f}, {high / 100:+.2f}]".replace("-", "\N{MINUS SIGN}")
    assert f"\N{MINUS SIGN}1.51 {ends} pays on preact only; costs on basic" in text
    assert EFFECT_RULE in text
    assert "p corrected for all differences together" in text


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
            "spec.stages[1].blocks = 2: leads nowhere: spec.stages has 1 entries, counted from 0 (in the network b)",
        ),
        (
            {"options": {"a": {"spec.block": "preact"}}, "design": "one-at-a-time"},
            "options.a = {'spec.block': 'preact'}: changes nothing: the base is so already (in the network preact)",
        ),
        (
            {
                "options": {},
                "design": "one-at-a-time",
                "factors": {"recipe.batch_size": list(range(2, 600))},
            },
            "factors = 1198: make so many variants; must be at most 1,000",
        ),
    ],
)
def test_what_is_no_study_of_networks_is_told_in_one_line(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        AblationStudy.from_mapping({**STUDY, **fields})
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)
