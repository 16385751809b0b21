"""Figures as files: self-contained pages in a real browser, images, and `budgetnet figures`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from browser_support import launched, needs_chromium, opened
from figures_support import HOSTILE, RUN, RUNS, curved, forest_rows
from support import TINY, RunCommand, child_environment, snapshot

from budgetnet.common.errors import InputError
from budgetnet.model import zoo
from budgetnet.runs.metrics import Calibration, CalibrationBin
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.visualization.figures import (
    ForestRow,
    accuracy_curves,
    confusion,
    forest,
    outline,
    reliability,
    require_writable,
    write_figure,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

needs_kaleido = pytest.mark.skipif(find_spec("kaleido") is None, reason="needs the extra figures")

HOSTILE_ROWS = [ForestRow(HOSTILE, 3, 0.01, 0.005, 0.02, True, None, HOSTILE)]
FIGURES: dict[str, Callable[[], Any]] = {
    "outline": lambda: outline(zoo.reference),
    "accuracy": lambda: accuracy_curves(RunFolder(RUN).load(weights=False)),
    "forest": lambda: forest(HOSTILE_ROWS, title=HOSTILE, note=HOSTILE),
    "confusion": lambda: confusion([[3, 1], [2, 5]], [HOSTILE, "dog"]),
    "reliability": lambda: reliability(Calibration(0.0, [CalibrationBin(0.0, 1.0, 8, 0.5, 0.5)])),
}


TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "p", "figure", "div", "script", "figcaption"}


class Page(HTMLParser):
    """A page's tags, attributes and words, as a browser would see them before any script has run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: dict[str, str] = defaultdict(str)
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words[self.tags[-1] if self.tags else ""] += data

    def classes(self) -> Counter[str]:
        """How many elements are of each class."""
        return Counter(name for key, value in self.attributes if key == "class" for name in (value or "").split())


@pytest.mark.parametrize("name", FIGURES)
def test_a_page_names_nothing_to_fetch_and_says_what_it_shows(tmp_path: Path, name: str) -> None:
    figure = FIGURES[name]()
    write_figure(figure, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert not {"src", "href", "srcset", "data", "action"} & {key for key, _ in page.attributes}
    assert "@import" not in page.words["style"]
    assert ("lang", "en") in page.attributes
    assert set(page.tags) <= TAGS
    meta = figure.layout.meta
    assert page.words["title"].strip() == page.words["h1"].strip() == meta["title"]
    assert (page.words["p"].strip(), page.words["figcaption"].strip()) == (meta["note"], meta["alt"])
    assert ("id", "alternative") in page.attributes
    assert ("aria-labelledby", "alternative") in page.attributes


def drawn(browser: Browser, path: Path) -> Page:
    """The page's elements once its scripts have run."""
    with opened(browser, path.as_uri()) as (page, watch):
        if "plotly.min.js" not in path.read_text(encoding="utf-8") or (path.parent / "plotly.min.js").exists():
            page.locator(".main-svg").first.wait_for(state="attached")
        assert not watch.foreign
        return Page(page.content())


MARKS: dict[str, dict[str, int]] = {
    # Two ends, four words for each of 7 parts, 16 lines in boxes and 5 shortcuts; 8 arrows and 5 sums.
    "outline": {"annotation": 2 + 4 * 7 + 16 + 5, "point": 8 + 5},
    # Two lines, drawn in the legend too; 5 epochs of each, and the best one.
    "accuracy": {"js-line": 2 * 2, "point": 2 * 5 + 1, "legendtext": 3},
    # A point, and the two ends of its interval.
    "forest": {"point": 1 + 2, "legendtext": 1},
    "confusion": {"hm": 1, "heatmap-label": 4},
}


@needs_chromium
def test_pages_draw_without_a_network_and_show_hostile_names_as_text(tmp_path: Path) -> None:
    with launched() as browser:
        for name, marks in MARKS.items():
            path = tmp_path / f"{name}.html"
            write_figure(FIGURES[name](), path)
            before, page = Page(path.read_text(encoding="utf-8")), drawn(browser, path)
            classes = page.classes()
            assert {mark: classes[mark] for mark in marks} == marks, name
            assert page.tags.count("script") == before.tags.count("script")
            if name in ("forest", "confusion"):
                # As name and remark, or beside either side of the matrix.
                assert (page.words["tspan"] + page.words["text"]).count(HOSTILE) == 2


@needs_chromium
def test_figures_share_a_script_beside_them(tmp_path: Path, tell: RunCommand) -> None:
    out = tmp_path / "a folder"
    told = tell("figures", str(RUN), "--spec", "reference", "--out", str(out), "--shared-script")
    assert (told.code, told.err) == (0, "")
    pages = [Path(line) for line in told.out.splitlines()]
    script = out / "plotly.min.js"
    assert {*pages, script} == set(out.iterdir())
    assert len(pages) == 4
    assert max(page.stat().st_size for page in pages) < 100_000
    with launched() as browser:
        for page in pages:
            assert drawn(browser, page).classes()["main-svg"] > 0
        # Alone, a page draws nothing: it is the script beside it that draws.
        script.rename(tmp_path / "elsewhere.js")
        assert drawn(browser, pages[0]).classes()["main-svg"] == 0
    # A script of another version is replaced, and an equal one is left.
    script.write_text("old")
    write_figure(outline(TINY), out / "tiny.html", shared_script=True)
    assert script.read_bytes() == (tmp_path / "elsewhere.js").read_bytes()
    before = snapshot(out)
    write_figure(outline(TINY), out / "tiny.html", shared_script=True)
    assert snapshot(out)[script.name] == before[script.name]


@needs_chromium
@needs_kaleido
def test_a_picture_is_drawn_by_a_browser(tmp_path: Path) -> None:
    write_figure(forest(forest_rows()), tmp_path / "forest.PNG")
    assert (tmp_path / "forest.PNG").read_bytes().startswith(b"\x89PNG")


@needs_chromium
@needs_kaleido
def test_an_equal_figure_gives_an_equal_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_figure(forest(forest_rows()), tmp_path / f"{name}.svg")
    one, two = ((tmp_path / f"{name}.svg").read_bytes() for name in ("one", "two"))
    assert one == two
    assert one.startswith(b"<svg")
    assert "<b>bold</b> & x" in "".join(ElementTree.fromstring(one).itertext())
    write_figure(outline(TINY), tmp_path / "other.svg")
    ids = [set(re.findall(r'id="topdefs-(\w+)"', (tmp_path / f"{name}.svg").read_text())) for name in ("one", "other")]
    assert len(ids[0]) == len(ids[1]) == 1
    assert ids[0] != ids[1]


@needs_kaleido
def test_without_a_browser_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from choreographer.browsers.chromium import Chromium

    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "absent"))
    if Path(Chromium.find_browser(skip_local=False) or tmp_path / "absent").exists():
        pytest.skip("kaleido has a browser of its own here")
    (tmp_path / "old.svg").write_text("old")
    with pytest.raises(InputError, match=r"--plot = .*needs Chromium") as caught:
        write_figure(outline(TINY), tmp_path / "old.svg", field="--plot")
    assert "\n" not in str(caught.value)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.svg", "old")]


def test_without_the_extra_pictures_are_refused_and_pages_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetnet.common.extras.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'kaleido>=1'; Chromium"):
        require_writable(tmp_path / "x.svg")
    require_writable(tmp_path / "x.html")


def test_as_data_a_figure_is_what_was_drawn(tmp_path: Path) -> None:
    figure = forest(forest_rows())
    write_figure(figure, tmp_path / "forest.json")
    read = json.loads((tmp_path / "forest.json").read_text())
    assert read["data"][1]["x"] == pytest.approx([-1.25, 0.75])
    assert read["layout"]["meta"]["alt"] == figure.layout.meta["alt"]


def study_runs(out: Path, records: list[RunRecord]) -> list[str]:
    """Run folders of these records, without weights."""
    for record in records:
        folder = RunFolder(out / record.identity.run_id)
        folder.begin(record.identity)
        folder.write_curves(list(record.curves))
        folder.finish(record.result.model_copy(update={"epochs": len(record.curves)}))
    return [str(path) for path in sorted(out.iterdir())]


def test_command_draws_each_network_once_and_seeds_together(tmp_path: Path, tell: RunCommand) -> None:
    seeds = [curved(seed=seed, losses=[(1.0, 2.0)], cycles=[1], best=1) for seed in (0, 1)]
    shared = seeds[0].identity.digest_without_seed[:10]
    other = sorted(RUNS.iterdir())[1]
    before = snapshot(other)
    folders = [*study_runs(tmp_path / "runs", seeds), str(other), f"{other}/."]
    told = tell("figures", *folders, "--out", str(tmp_path / "out"), "--format", "json, html,json")
    assert (told.code, told.err) == (0, "")
    names = [f"{seeds[0].identity.spec.label}-2-seeds-{shared}", other.name]
    expected = [
        str(tmp_path / "out" / f"{name}-{part}.{suffix}")
        for name in names
        for part in ("outline", "accuracy", "loss")
        for suffix in ("json", "html")
    ]
    assert told.out.split() == expected
    assert sorted(map(str, (tmp_path / "out").iterdir())) == sorted(expected)
    loss = json.loads((tmp_path / "out" / f"{names[0]}-loss.json").read_text())
    assert [trace["y"] for trace in loss["data"] if trace["name"] == "validation, mean"] == [[2.0]]
    assert snapshot(other) == before


def test_command_draws_a_network_without_a_run(tmp_path: Path, tell: RunCommand) -> None:
    told = tell("figures", "--spec", "reference", "--out", str(tmp_path), "--format", "json")
    assert told.out == f"{tmp_path / 'reference-outline.json'}\n"
    assert "4,662,346" in (tmp_path / "reference-outline.json").read_text()


def test_figures_command_does_not_import_torch(tmp_path: Path) -> None:
    command = ["figures", str(RUN), "--spec", "reference", "--format", "json"]
    code = f"from budgetnet.cli.main import main; import sys; assert main({command}) == 0; "
    code += "assert not {'torch', 'torchvision', 'optuna'} & set(sys.modules)"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path, env=child_environment())
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "figures").iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ([], "RUN"),
        (["--spec", "reference", "--format", "gif"], "--format"),
        (["--spec", "reference", "--format", ""], "--format"),
        (["--spec", "nosuch"], "--spec"),
        (["--spec", "reference", "--out", "file/sub"], "--out"),
        (["--spec", "reference", "--out", "file"], "--out"),
        (["nosuch"], "run folder"),
        (["copies/a", "copies/b"], "runs"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: RunCommand, arguments: list[str], field: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name in ("a", "b"):
        shutil.copytree(RUN, tmp_path / "copies" / name)
    told = tell("figures", *arguments)
    assert told.code == 2
    assert told.err.startswith(f"error: {field}")
    assert told.err.count("\n") == 1
    assert not (tmp_path / "figures").exists()


def test_runs_whose_folders_are_called_alike_do_not_overwrite_each_other(tmp_path: Path, tell: RunCommand) -> None:
    for place, run in zip(("a", "b"), sorted(RUNS.iterdir()), strict=False):
        shutil.copytree(run, tmp_path / place / "run")
    told = tell("figures", str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run"), "--out", str(tmp_path / "out"))
    assert (told.code, (tmp_path / "out").exists()) == (2, False)
    assert "must have another name than the other runs" in told.err
