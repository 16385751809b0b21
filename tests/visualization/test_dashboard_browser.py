"""The dashboard in a real browser: what it shows, and that nothing is requested from other hosts."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import urlopen
from xml.etree import ElementTree

import numpy as np
import pytest
from browser_support import PHONE, Watch, launched, needs_chromium, opened
from dashboard_support import NAME, Copy, all_outcomes, copied
from PIL import Image
from test_dashboard_server import serving

from budgetnet.model.spec import ModelSpec

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["all_outcomes"]
pytestmark = needs_chromium


class Shown(NamedTuple):
    """A study that is served, and a browser."""

    copy: Copy
    browser: Browser
    base: str
    study: str

    def page(self, path: str = "", **how: int) -> Any:
        """A page of the study, and what it does."""
        return opened(self.browser, f"{self.base}/dashboard/studies/{self.study}{path}", **how)


@pytest.fixture(scope="module")
def shown(all_outcomes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    copy = copied(all_outcomes, tmp_path_factory.mktemp("browser") / "runs")
    with serving(copy.out, NAME) as (_, address), launched() as browser:
        yield Shown(copy, browser, address["base"], address["study"])


def require_quiet(watch: Watch) -> None:
    assert not watch.foreign
    assert not watch.complaints
    assert len(watch.requests) > 3


def test_the_best_trial_is_the_best_of_the_leaderboard(shown: Shown) -> None:
    complete = [trial for trial in shown.copy.trials if trial.outcome == "complete"]
    best = max(complete, key=lambda trial: (trial.accuracy or 0, -trial.params))
    alike = {trial.number for trial in shown.copy.trials if trial.spec == best.spec and trial.accuracy is not None}
    with shown.page() as (page, watch):
        heading = page.get_by_text(re.compile(r"Best Trial \(number=\d+\)")).text_content()
        assert heading is not None
        assert int(re.findall(r"\d+", heading)[0]) in alike
        page.get_by_text(str(best.accuracy), exact=True).first.wait_for()
        require_quiet(watch)


def drawn(page: Page, name: str) -> Any:
    """A figure's marks as they lie on the page, once they are drawn."""
    figure = page.locator(f"[id='user-defined-plot:{name}']")
    figure.locator(".main-svg").first.wait_for()
    return figure


@pytest.mark.parametrize("width", [1280, PHONE])
def test_the_study_s_figures_are_drawn_within_their_cards(shown: Shown, width: int) -> None:
    with shown.page(width=width) as (page, watch):
        trials = shown.copy.trials
        outcomes = [trial.outcome for trial in trials]
        for cost in ("params", "macs"):
            points = drawn(page, f"accuracy-against-{cost}").locator(".scatterlayer .points path")
            assert points.count() == outcomes.count("complete") + outcomes.count("pruned")
        candidates = len(trials) - outcomes.count("resumed")
        assert drawn(page, "budget-use").locator(".scatterlayer .points path").count() == candidates < len(trials)
        # Six bars: those that continued and those pruned, at each of three cycles.
        assert drawn(page, "candidates-by-rung").locator(".barlayer .point").count() == 6
        for name in ("accuracy-against-params", "accuracy-against-macs", "budget-use", "candidates-by-rung"):
            figure = drawn(page, name)
            card = figure.bounding_box()
            inside = figure.locator(".gtitle, .xtitle, .ytitle, .legend").all()
            assert len(inside) == 4
            for box in [each.bounding_box() for each in inside]:
                assert card["x"] <= box["x"] + 1
                assert card["y"] <= box["y"]
                assert box["x"] + box["width"] <= card["x"] + card["width"] + 1, name
                assert box["y"] + box["height"] <= card["y"] + card["height"], name
            title, legend = (figure.locator(part).bounding_box() for part in (".gtitle", ".legend"))
            assert title["y"] + title["height"] < legend["y"], "the legend lies below, not over the title"
        picture = Image.open(io.BytesIO(drawn(page, "candidates-by-rung").screenshot())).convert("RGB")
        for colour in ((0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)):
            close = (np.abs(np.asarray(picture).astype(int) - colour) < 24).all(axis=2)
            assert close.sum() > 300, "both kinds of bars are filled"
        require_quiet(watch)


def test_the_study_s_note_is_read_as_it_was_meant(shown: Shown) -> None:
    with shown.page("/note") as (page, watch):
        page.get_by_role("heading", name=f"Study {NAME}", exact=True).wait_for()
        assert page.get_by_role("row", name="budget at most 20,000 params").is_visible()
        command = page.get_by_text(re.compile("^budgetnet leaderboard ")).text_content()
        assert command is not None
        assert f"'{NAME}'" in command, "what is copied is the name as it stands"
        require_quiet(watch)


def test_a_trial_s_note_is_read_and_its_files_are_had(shown: Shown, tmp_path: Path) -> None:
    trial = next(trial for trial in shown.copy.trials if trial.outcome == "complete" and not trial.enqueued)
    with shown.page(f"/trials?numbers={trial.number}") as (page, watch):
        page.get_by_role("heading", name=f"#{trial.number} {trial.architecture}").wait_for()
        row = page.get_by_role("row", name=re.compile("^params"))
        assert row.get_by_role("cell").all_inner_texts()[0].strip() == "params"
        assert f"{trial.params:,}" in row.inner_text()
        for name in ("learning-curves.svg", "outline.svg"):
            page.wait_for_function("name => document.querySelector(`img[alt='${name}']`)?.naturalWidth > 0", arg=name)
        image = page.locator("img[alt='learning-curves.svg']")
        assert image.evaluate("image => image.naturalWidth / image.naturalHeight") == pytest.approx(960 / 384, abs=0.02)
        image.scroll_into_view_if_needed()
        red, _, blue = np.moveaxis(
            np.asarray(Image.open(io.BytesIO(image.screenshot())).convert("RGB")).astype(int), 2, 0
        )
        for line in (red - blue > 40, blue - red > 40):
            assert all(half.sum() > 20 for half in np.array_split(line, 2, axis=1)), "both lines in both panels"
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
            "no line makes the page wider"
        )
        assert not watch.foreign
        assert not watch.complaints
    with urlopen(f"{shown.base}/api/studies/{shown.study}", timeout=30) as answer:
        listed = json.load(answer)["trials"][trial.number]
    files = {}
    for each in listed["artifacts"]:
        address = f"{shown.base}/artifacts/{shown.study}/{listed['trial_id']}/{each['artifact_id']}"
        with urlopen(address, timeout=30) as answer:
            files[each["filename"]] = answer.read()
            assert answer.headers["Content-Type"] == each["mimetype"]
    spec = tmp_path / "spec.yaml"
    spec.write_bytes(files["spec.yaml"])
    assert ModelSpec.load(spec).digest == trial.spec
    assert ElementTree.fromstring(files["learning-curves.svg"]).tag.endswith("svg")


def test_candidate_over_budget_is_marked_and_not_best(shown: Shown) -> None:
    trial = shown.copy.trial("over budget")
    with shown.page(f"/trials?numbers={trial.number}") as (page, watch):
        page.get_by_text("Over budget: rejected before training.").wait_for()
        page.get_by_text(re.compile("^Nothing was trained. Constraint values")).wait_for()
        assert (
            not page.get_by_role("heading", name=f"Trial {trial.number}")
            .locator("..")
            .get_by_text("Best Trial")
            .count()
        )
        require_quiet(watch)


# What Chromium says where the processor does what the dashboard's own parallel coordinates ask a graphics card for.
NO_GRAPHICS_CARD = "GPU stall due to ReadPixels"


@pytest.mark.slow
def test_the_table_of_trials_has_the_columns(shown: Shown) -> None:
    trial = shown.copy.trial("duplicate")
    with shown.page("/smartSelection") as (page, watch):
        page.locator("tbody tr").first.wait_for(state="attached")
        headings = page.locator("thead th").all_text_contents()
        for name in ("params", "macs", "budget_used", "validation_accuracy", "cycles", "seed"):
            assert f"UserAttribute {name}sorted ascending" in headings, "a number, by which a table can be sorted"
        assert {"UserAttribute ended", "UserAttribute spec", "UserAttribute architecture"} <= set(headings)
        row = page.locator("tbody tr").nth(trial.number).locator("td").all_text_contents()
        text = row[headings.index("UserAttribute validation_accuracysorted ascending")]
        assert float(text) == pytest.approx(trial.accuracy, abs=1e-6)
        watch.complaints[:] = [text for text in watch.complaints if NO_GRAPHICS_CARD not in text]
        require_quiet(watch)
