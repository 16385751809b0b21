"""HTML page of a report: content, security policy, and `budgetnet report`."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import shlex
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState
from report_support import (
    ENVIRONMENT,
    HOSTILE,
    STUDIES,
    Elements,
    WrittenStudy,
    every_outcome,
    network,
    report_of,
    text_of,
    write_run,
)
from support import RunCommand

from budgetnet.api.report import report
from budgetnet.bench.synthetic_study import write_study
from budgetnet.common.errors import RecordError
from budgetnet.runs.store import RunFolder
from budgetnet.study.storage import default_storage, find_study, open_storage
from budgetnet.visualization.figures import ForestRow, accuracy_front, budget_use, forest
from budgetnet.visualization.report import Report, collect, render, write_report
from budgetnet.visualization.report.figures import embed
from budgetnet.visualization.report.rejected import rejections


@pytest.fixture
def whole(tmp_path: Path) -> Report:
    """A report with every section filled."""
    study = every_outcome(tmp_path, name="study")
    folders = {"ablations": [STUDIES / "schedule"], "reproductions": [STUDIES / "leakage"]}
    return report_of(study, **folders)


def test_a_page_has_one_element_of_each_kind_where_a_reader_looks_for_it(whole: Report) -> None:
    page = Elements(render(whole))
    sections = [attributes["id"] for tag, attributes in page.found if tag == "section"]
    assert sections == [
        *(
            "finals",
            "leaderboard",
            "why",
            "front",
            "course",
            "learning",
            "network",
            "confusion",
            "importance",
            "rejected",
        ),
        *("ablations", "reproductions", "origin"),
    ]
    links = [attributes["href"] for tag, attributes in page.found if tag == "a"]
    assert links[1:] == [f"#{name}" for name in sections]
    figures = [attributes for tag, attributes in page.found if tag == "figure"]
    named = {attributes["aria-labelledby"] for attributes in figures}
    assert {attributes["role"] for attributes in figures} == {"img"}
    assert named == {attributes["id"] for tag, attributes in page.found if tag == "figcaption"}
    # Two fronts, use, rungs, three learning curves, the outline, the confusion matrix and one ablation.
    assert len(named) == 10
    alt = accuracy_front(whole.trials, cost="macs", budget=whole.settings.budget).layout.meta["alt"]
    assert " ".join(alt.split()) in text_of(render(whole))


def test_a_page_names_nothing_to_fetch_and_allows_its_own_scripts_alone(whole: Report) -> None:
    page = render(whole)
    elements = Elements(page)
    fetching = {"src", "srcset", "data", "action", "poster", "background", "xlink:href", "formaction", "ping"}
    assert not fetching & {name for _, attributes in elements.found for name in attributes}
    assert all((attributes.get("href") or "#").startswith("#") for _, attributes in elements.found)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in elements.found}
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [each["content"] or "" for _, each in elements.found if "http-equiv" in each]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src"}
    assert rules["default-src"] == "'none'"
    kinds = [attributes.get("type") for tag, attributes in elements.found if tag == "script"]
    programs = [script for script, kind in zip(elements.scripts, kinds, strict=True) if kind is None]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in programs]
    assert rules["script-src"] == " ".join(f"'sha256-{each}'" for each in hashes)
    assert len(programs) == 2
    # The Plotly template takes seven kilobytes and is stored once, not in each figure.
    assert sum('"colorway"' in script for script in elements.scripts if script not in programs) == 1


@pytest.mark.parametrize("limit", [None, 100_000])
def test_shares_of_the_budget_are_shown_only_where_it_has_a_limit(tmp_path: Path, limit: int | None) -> None:
    study = WrittenStudy(tmp_path, max_params=limit)
    spec = network(16)
    study.complete(spec, 9_000)
    study.pruned(network(8), 5_000, cycle=1)
    page = render(report_of(study))
    words = text_of(page)
    found = {
        "beside the parameters": words.count(f" {spec.params / 1_000:.1f} % of the budget used"),
        "columns of both tables": words.count(" budget % "),
        "figure, as heading and in its data": page.count("Share of the budget used"),
        "of the budget, in all": words.count("of the budget"),
    }
    assert list(found.values()) == ([1, 2, 2, 3] if limit else [0, 0, 0, 0]), found
    for rows in (page[page.index(f'<h2 id="{name}-title"') :] for name in ("leaderboard", "rejected")):
        table = rows[rows.index('<table class="sortable">') :].partition("</table>")[0].split("<tr")[1:]
        assert len({row.count("<th ") + row.count("<td") for row in table}) == 1, "a cell below each heading"


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    study = WrittenStudy(tmp_path, name=HOSTILE)
    hostile = network(8).replace(name="x")
    study.complete(hostile, 9_000, label=HOSTILE, run="evil", folder=False)
    identity = study.identity(hostile)
    write_run(RunFolder(tmp_path / "evil"), identity, correct=9_000, environment={**ENVIRONMENT, "processor": HOSTILE})
    study.add(network(12), TrialState.FAIL, label=HOSTILE, ended=HOSTILE, run="gone", seed=0)
    study.add(network(128, 128), TrialState.PRUNED, label=HOSTILE, ended="over budget")
    study.complete(network(10), 8_000, run=HOSTILE, folder=False)
    sober = WrittenStudy(tmp_path / "sober")
    for kept in study.study.get_trials():
        sober.study.add_trial(kept)
    page, plain = (Elements(render(collect(each.study, out=tmp_path))) for each in (study, sober))
    words = " ".join(page.words)
    # Title, headline; label and run on the board; labels and the reason in the list; the processor; three commands.
    assert words.count(HOSTILE) >= 7
    assert shlex.quote(HOSTILE) in words
    count = Counter(tag for tag, _ in page.found)
    assert count["script"] == sum(tag == "script" for tag, _ in plain.found)
    assert not any("<script" in script for script in page.scripts[:-2])
    assert not any("onerror" in attributes for _, attributes in page.found)


def test_a_figure_cannot_end_the_element_that_holds_it() -> None:
    figure = forest([ForestRow(HOSTILE, 3, 0.01, 0.005, 0.02, True, None, HOSTILE)], title=HOSTILE, note=HOSTILE)
    drawn = embed(figure)
    assert not set("<>") & set(drawn.json)
    assert json.loads(drawn.json)["layout"]["meta"]["title"] == drawn.title == HOSTILE


@pytest.mark.slow
def test_a_thousand_candidates_fit_into_six_megabytes(tmp_path: Path) -> None:
    write_study(tmp_path, trials=1_000, environment=ENVIRONMENT)
    study = find_study(open_storage(default_storage(tmp_path), create=False), None)
    page = render(collect(study, out=tmp_path))
    rows = [attributes for tag, attributes in Elements(page).found if tag == "tr"]
    assert len(rows) > 1_000
    assert len(page.encode()) <= 6_000_000


def test_many_rejected_candidates_are_sampled_and_counted(whole: Report) -> None:
    away = next(trial for trial in whole.trials if trial.outcome == "over budget")
    many = [away._replace(number=100 + place) for place in range(2_500)]
    trials = [*whole.trials, *many]
    report = whole._replace(trials=tuple(trials), rejections=tuple(rejections(trials, whole.settings.budget)))
    page = render(report)
    use = next(json.loads(each) for each in Elements(page).scripts if each.startswith("{") and "triangle-up" in each)
    drawn = next(trace["x"] for trace in use["data"] if trace["name"] == "over budget")
    assert 800 < len(drawn) <= 1_000
    assert (min(drawn), max(drawn) > 2_500) == (6, True)
    words = text_of(page)
    assert f"{len(drawn)} of 2,502 candidates over budget are shown" in words
    assert " ".join(budget_use(trials).layout.meta["alt"].split()) in words
    assert "The first 500 of 2,511; the others are counted above." in words
    assert "over budget 2,502" in words


# The command.


def test_a_report_is_written_and_written_again(tell: RunCommand, tmp_path: Path) -> None:
    study = every_outcome(tmp_path / "runs")
    page = tmp_path / "page.html"
    page.write_text("what was there")
    answer = tell("report", "-o", str(page), "--out", str(study.out), "--ablation", str(STUDIES / "schedule"))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"study: {page}\n"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "schedule: difference to the base" in text_of(page.read_text(encoding="utf-8"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "runs"]


@pytest.mark.parametrize("page", ["missing/page.html", "page.htm", "page", "folder.html"])
def test_a_page_that_cannot_be_written_is_refused_before_any_work(tell: RunCommand, tmp_path: Path, page: str) -> None:
    (tmp_path / "folder.html").mkdir()
    # No study is there: had it been looked for, the error would be of that.
    answer = tell("report", "-o", str(tmp_path / page), "--out", str(tmp_path))
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith("error: --output = ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.html"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "no such study"),
        (["--ablation", "nowhere"], "must have a study.yaml, or runs of an ablation"),
        (["--reproduction", "nowhere"], "has no run that was evaluated on the test set"),
    ],
)
def test_missing_inputs_give_one_line(tell: RunCommand, tmp_path: Path, arguments: list[str], words: str) -> None:
    study = every_outcome(tmp_path / "runs")
    answer = tell("report", *arguments, "-o", str(tmp_path / "page.html"), "--out", str(study.out))
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert words in answer.err
    assert not (tmp_path / "page.html").exists()


def test_commands_on_the_page_have_the_same_config(tell: RunCommand, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "runs")]
    asked = ["--max-params", "70k", "--epochs", "1", "--train-size", "64", "--validation-size", "40"]
    asked += ["--enqueue", "resnet20", "--max-params", "300k", "--sampler", "random", "--trials", "2", "--seed", "3"]
    assert tell("search", *asked, "--finalists", "1", "--final-seeds", "1", "--final-epochs", "1", *out).code == 0
    study = find_study(open_storage(default_storage(tmp_path / "runs"), create=False), None)
    found = collect(study, out=tmp_path / "runs")
    before = len(study.get_trials())
    search, leaderboard, report, train = (shlex.split(command.line) for command in found.commands)
    # Without the study's name, only the same question finds it again.
    place = search.index("--study")
    del search[place : place + 2]
    again = tell(*search[1:], "--json")
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out)["study"] == found.study
    assert len(study.get_trials()) == before
    assert tell(*leaderboard[1:]).code == 0
    report[report.index("-o") + 1] = str(tmp_path / "page.html")
    assert tell(*report[1:]).code == 0
    train[train.index("--out") + 1] = str(tmp_path / "again")
    assert tell(*train[1:]).code == 0
    (name,) = [path.name for path in (tmp_path / "again").iterdir() if path.is_dir()]
    assert found.best is not None
    assert name == found.best.run
    columns = ("train_loss", "validation_loss", "validation_accuracy")
    kept, made = (curves(tmp_path / place / name, columns) for place in ("runs", "again"))
    assert kept == made


def curves(folder: Path, columns: tuple[str, ...]) -> list[list[str]]:
    with (folder / "curves.csv").open(newline="") as stream:
        return [[row[column] for column in columns] for row in csv.DictReader(stream)]


def test_a_report_that_fails_leaves_the_old_page(tmp_path: Path, whole: Report) -> None:
    page = tmp_path / "page.html"
    page.write_text("what was there")
    broken = whole._replace(environments=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        write_report(broken, page)
    assert page.read_text() == "what was there"


def test_report_without_a_search_has_only_its_experiments(tmp_path: Path) -> None:
    ablations, reproductions = [STUDIES / "schedule"], [STUDIES / "leakage"]
    page = tmp_path / "page.html"
    written = report(to=page, out=tmp_path / "nowhere", ablations=ablations, reproductions=reproductions)
    assert written == ("schedule, reproduction", page)
    elements = Elements(page.read_text())
    assert [attributes["id"] for tag, attributes in elements.found if tag == "section"] == [
        "ablations",
        "reproductions",
    ]
    words = " ".join(elements.words)
    kept = json.loads((STUDIES / "leakage" / "leakage.json").read_text())
    for recipe in kept["recipes"]:
        assert f"{100 * recipe['test_accuracy']:.2f}" in words
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(RecordError, match="the storage has no study"):
        report("mine", to=page, out=tmp_path / "nowhere", ablations=ablations)
