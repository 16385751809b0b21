"""Results of studies of several networks in tables, files, figures, notebooks and reports."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from ablation_support import BASES, COMPARISONS, NAMES, STUDY, counts_of, differences_of, result_of
from report_support import STUDIES, every_outcome, report_of, text_of
from rich.console import Console
from scipy import stats

from budgetnet.cli.ablation_tables import changes_table
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.experiments.ablation.changes import EFFECT_RULE, POOLED_RULE
from budgetnet.experiments.ablation.results import AblationResult
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


@pytest.fixture(scope="module")
def result() -> AblationResult:
    return result_of(AblationStudy.from_mapping(STUDY), counts_of)


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
    third_seed = [counts_of(network, name)[2] for network in BASES for name in NAMES]
    assert read["seed 8"].tolist() == pytest.approx([count / 10_000 for count in third_seed])
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
    low, high = stats.ttest_rel(
        *(counts_of("preact", name) for name in ("all without decay", "all"))
    ).confidence_interval()
    ends = f"[{low / 100:+.2f}, {high / 100:+.2f}]".replace("-", "\N{MINUS SIGN}")
    assert f"\N{MINUS SIGN}1.51 {ends} +0.09" in text, "then all networks: 168.75 and -151.25 are 8.75 on average"
    assert "pays, but not on preact" in text
    assert f"{EFFECT_RULE} {POOLED_RULE}" in text
    assert "p-values corrected over all differences on single networks" in text
