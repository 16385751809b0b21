"""Reports in a real browser: display, sorting, figures, print, narrow screens, without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
from browser_support import DESKTOP, PHONE, Watch, launched, needs_chromium, opened, overflow
from report_support import STUDIES, WrittenStudy, every_outcome, network, report_of

from budgetnet.visualization.report import Report, collect, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_chromium
DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    """A report with every section filled, and the address of its page."""
    folder = tmp_path_factory.mktemp("report")
    study = every_outcome(folder)
    for width, correct in enumerate((9_250, 8_700, 9_305, 800), 3):
        study.complete(network(width), correct)
    report = collect(study.study, out=folder, ablations=[STUDIES / "schedule"], reproductions=[STUDIES / "leakage"])
    write_report(report, folder / "page.html")
    return report, (folder / "page.html").as_uri()


def wait_until_drawn(page: Page) -> None:
    # By a selector, as the page's policy forbids the expressions that a browser would have to evaluate again and again.
    page.locator("html[data-drawn='all']").wait_for(state="attached")


@pytest.fixture(scope="module")
def desktop(browser: Browser, made: tuple[Report, str]) -> Iterator[tuple[Page, Watch]]:
    """The page with its figures, for tests that leave it as it is."""
    with opened(browser, made[1]) as (page, watch):
        wait_until_drawn(page)
        yield page, watch


@pytest.fixture(scope="module")
def phone(browser: Browser, made: tuple[Report, str]) -> Iterator[tuple[Page, Watch]]:
    """The page with its figures on a narrow screen, for tests that leave it as it is."""
    with opened(browser, made[1], width=PHONE) as (page, watch):
        wait_until_drawn(page)
        yield page, watch


def column(page: Page, name: str) -> list[str]:
    """The texts of a column of the leaderboard, from top to bottom."""
    heads = page.locator("#leaderboard thead th").all_inner_texts()
    place = next(
        number for number, head in enumerate(heads, 1) if head.split("\xa0")[0].split(" to ")[0].strip() == name
    )
    return page.locator(f"#leaderboard tbody tr > :nth-child({place})").all_inner_texts()


def test_the_best_candidate_stands_where_one_looks_first(desktop: tuple[Page, Watch], made: tuple[Report, str]) -> None:
    (page, _), (report, _) = desktop, made
    complete = [trial for trial in report.trials if trial.outcome == "complete"]
    study_best = max(complete, key=lambda trial: trial.accuracy or 0)
    assert page.title() == "study: at most 100,000 parameters, 25,000,000 MACs"
    first = page.locator("#leaderboard tbody tr").first
    assert first.locator("th").inner_text() == study_best.name
    headline = page.locator(".best .main").inner_text()
    # The finalists come first: of them the best is recommended.
    assert report.finals is not None
    final = report.finals[0]
    assert f"Best finalist: {final.finalist.name}" in headline
    assert f"{100 * fmean(final.test):.2f}" in headline
    assert page.locator("section").first.get_attribute("id") == "finals"
    assert page.locator("#leaderboard tr.published").count() == 0, "these are other images than CIFAR-10"


@pytest.mark.parametrize("by", ["click", "Enter"])
def test_the_leaderboard_sorts_numbers_as_numbers(browser: Browser, made: tuple[Report, str], by: str) -> None:
    with opened(browser, made[1]) as (page, _):

        def press(name: str) -> str | None:
            head = page.locator("#leaderboard thead th").filter(has_text=name).first
            button = head.locator("button")
            if by == "click":
                button.click()
            else:
                button.focus()
                page.keyboard.press("Enter")
            assert page.locator("#leaderboard th[aria-sort]").count() == 1
            return head.get_attribute("aria-sort")

        def whole(texts: list[str]) -> list[int]:
            return [int(text.replace(",", "").lstrip("#")) for text in texts]

        before = whole(column(page, "params"))
        assert before != sorted(before)
        assert press("params") == "ascending"
        # As texts, 1,000 would come before 200.
        assert whole(column(page, "params")) == sorted(before)
        assert sorted(before) != sorted(before, key=str)
        assert press("params") == "descending"
        assert whole(column(page, "params")) == sorted(before, reverse=True)
        press("gap")
        gaps = [float(text.replace("\N{MINUS SIGN}", "-")) for text in column(page, "gap")[:-1]]
        assert gaps == sorted(gaps)
        assert gaps[0] < 0
        # What has no gap, because the others are compared with it, stands last, whichever way.
        assert press("gap") == "descending"
        assert column(page, "gap")[-1] == DASH
        press("candidate")
        names = column(page, "candidate")
        assert whole(names) == sorted(whole(names))
        press("rank")
        assert [text for text in column(page, "rank") if text != DASH] == [
            str(rank) for rank in range(1, len(names) + 1)
        ]


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_every_figure_is_drawn_and_nothing_is_asked_for(
    request: pytest.FixtureRequest, made: tuple[Report, str], screen: str
) -> None:
    (page, watch), (report, address) = request.getfixturevalue(screen), made
    figures = page.locator("figure")
    # Two fronts, use, rungs, the outline, the confusion matrix, and one for each set of curves and each ablation.
    assert figures.count() == 6 + bool(report.effects) + len(report.learning) + len(report.ablations)
    for figure in figures.all():
        assert figure.get_attribute("role") == "img"
        words = figure.get_attribute("aria-labelledby")
        assert len(page.locator(f"#{words}").inner_text()) > 30
        drawn = figure.locator("svg.main-svg").first.bounding_box()
        assert drawn is not None
        assert drawn["width"] > 200
        assert drawn["height"] > 100
        marks = ".trace, .bars .point, .shapelayer path, .scatterlayer .point, .hm"
        assert figure.locator(marks).count() > 0
    assert page.evaluate(OVERLAPPING_LABELS) == []
    assert overflow(page) == 0
    assert watch.complaints == []
    assert watch.requests == [address]


def point_of(page: Page, *, figure: str, trace: str, place: int = 0) -> list[Any]:
    """Scroll to a figure, and return what a point of a trace holds and where it is in the window."""
    found: list[Any] = page.locator(f"[data-figure='{figure}-data']").evaluate(
        """(plot, [name, place]) => {
            const trace = plot.data.find((each) => each.name === name);
            const [x, y] = [plot._fullLayout.xaxis, plot._fullLayout.yaxis];
            plot.scrollIntoView({ behavior: "instant" });
            const box = plot.getBoundingClientRect();
            const across = box.left + x._offset + x.d2p(trace.x[place]);
            return [trace.customdata[place], across, box.top + y._offset + y.d2p(trace.y[place])];
        }""",
        [trace, place],
    )
    return found


@pytest.mark.parametrize(
    ("marker", "section"), [("front", "leaderboard"), ("pruned at the end of a cycle", "rejected")]
)
def test_a_point_of_the_front_leads_to_its_row(
    browser: Browser, made: tuple[Report, str], marker: str, section: str
) -> None:
    with opened(browser, made[1]) as (page, _):
        wait_until_drawn(page)
        name, *at = point_of(page, figure="front-1", trace=marker)
        page.mouse.move(*at)
        page.locator(".plot.linked").wait_for()
        page.mouse.click(*at)
        row = page.locator(f"#{section} tr:target")
        row.wait_for()
        assert row.locator("th").inner_text() == name
        assert page.evaluate(
            """async () => {
                await Promise.all(document.getAnimations().map((each) => each.finished));
                const row = document.querySelector("tr:target");
                return new Promise((seen) => new IntersectionObserver((entries, watch) => {
                    if (!entries[0].isIntersecting) return;
                    watch.disconnect();
                    seen(true);
                }).observe(row));
            }"""
        )


def test_a_best_epoch_is_no_link_to_the_candidate_with_the_number_of_its_seed(browser: Browser, tmp_path: Path) -> None:
    study = WrittenStudy(tmp_path)
    for width in (16, 24):
        study.complete(network(width), 9_000 + width)
    # Apart, so that the mean over the seeds does not lie over what is clicked.
    study.finals(1, {0: network(16)}, tests=[9_000, 9_100], apart=500)
    write_report(report_of(study), tmp_path / "page.html")
    with opened(browser, (tmp_path / "page.html").as_uri()) as (page, _):
        wait_until_drawn(page)
        assert page.locator("#candidate-1").count() == 1
        seed, across, down = point_of(page, figure="learning-1", trace="best epochs", place=1)
        assert seed == 1
        # Beside the middle of the marker, where Plotly would take the line below it.
        at = across, down + 5
        page.mouse.move(*at)
        page.locator("[data-figure='learning-1-data'] .hovertext").filter(has_text="best epoch 2, seed 1").wait_for()
        assert page.locator(".plot.linked").count() == 0
        page.mouse.click(*at)
        assert page.locator("tr:target").count() == 0
        assert not page.url.partition("#")[2]


def test_a_script_that_slipped_into_the_page_would_not_run(browser: Browser, made: tuple[Report, str]) -> None:
    with opened(browser, made[1]) as (page, watch):
        page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.slipped = true";
                document.body.append(script);
            }"""
        )
        assert page.evaluate("window.slipped") is None
        (complaint,) = watch.complaints
        assert "Content Security Policy" in complaint


def test_figures_fit_a_window_that_changes(browser: Browser, made: tuple[Report, str]) -> None:
    with opened(browser, made[1], width=DESKTOP) as (page, _):
        wait_until_drawn(page)
        for width in (PHONE, 688, DESKTOP, 900):
            page.set_viewport_size({"width": width, "height": 900})
            page.locator(f"html[data-fitted='{width}']").wait_for(state="attached")
            _require_figures_that_fit(page)


def _require_figures_that_fit(page: Page) -> None:
    assert overflow(page) == 0
    for figure in page.locator("figure").all():
        box = figure.locator("svg.main-svg").first.bounding_box()
        place = figure.bounding_box()
        assert box is not None
        assert place is not None
        assert abs(box["width"] - place["width"]) < 1
        if figure.locator(".legend .bg").count():
            legend, plot = (figure.locator(each).bounding_box() for each in (".legend .bg", ".nsewdrag"))
            assert legend is not None
            assert plot is not None
            # Where it takes more lines than before, or fewer, it must not lie over what is drawn.
            assert legend["y"] + legend["height"] <= plot["y"] + 1


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_without_scripts_tables_and_words_are_all_there(browser: Browser, made: tuple[Report, str], width: int) -> None:
    report, address = made
    context = browser.new_context(java_script_enabled=False, viewport={"width": width, "height": 900})
    try:
        page = context.new_page()
        page.goto(address)
        rows = page.locator("#leaderboard tbody tr")
        assert rows.count() == len(report.standings)
        assert page.locator("button").count() == 0
        for words in page.locator("figcaption").all():
            assert words.is_visible()
        # What a script would have drawn leaves no hole.
        heights = [box["height"] for each in page.locator(".plot").all() if (box := each.bounding_box())]
        assert max(heights) == 0
        assert page.locator("#rejected tbody tr").last.inner_text().split()[0] == report.rejections[-1].trial.name
    finally:
        context.close()


def test_paper_shows_everything_that_a_screen_has_room_to_scroll(browser: Browser, made: tuple[Report, str]) -> None:
    with opened(browser, made[1]) as (page, _):
        wait_until_drawn(page)
        page.emulate_media(media="print")
        hidden = page.evaluate(
            """() => [...document.querySelectorAll("main *, header *, footer *")]
                .filter((each) => !each.closest("nav, .screen, .plot, script, svg"))
                .filter((each) => each.getClientRects().length === 0)
                .map((each) => each.tagName)"""
        )
        assert hidden == []
        clipped = page.evaluate(
            """() => [...document.querySelectorAll(".scroller")].filter((each) =>
                getComputedStyle(each).overflowY !== "visible" || getComputedStyle(each).maxHeight !== "none").length"""
        )
        assert clipped == 0
        assert page.locator("nav").is_hidden()
        # Figures stand in two columns, and their labels within them.
        columns, outside = page.evaluate(
            """() => {
                const plots = [...document.querySelectorAll(".plot")];
                const outside = plots.flatMap((plot) => [...plot.querySelectorAll("svg text")].filter((text) => {
                    const box = text.getBoundingClientRect(), place = plot.getBoundingClientRect();
                    return box.left < place.left - 1 || box.right > place.right + 1 || box.bottom > place.bottom + 1;
                }).map((text) => `${plot.dataset.figure}: ${text.textContent}`));
                const columns = new Set(plots.map((plot) => Math.round(plot.getBoundingClientRect().left)));
                return [columns.size, outside];
            }"""
        )
        assert (columns, outside) == (2, [])
        assert page.pdf(format="A4").startswith(b"%PDF")


OVERLAPPING_LABELS = """() => [...document.querySelectorAll(".plot")].flatMap((plot) => ["x", "y"].flatMap((axis) => {
    const labels = [...plot.querySelectorAll(`.${axis}tick text`)].map((text) => {
        const box = text.getBoundingClientRect();
        // A slanted label overlaps the next only where its line does.
        return [text.textContent, text.getAttribute("transform").startsWith("rotate(0") ? box : {}];
    });
    return labels.flatMap(([text, box], place) => labels.slice(place + 1)
        .filter(([, other]) => box.left < other.right - 1 && other.left < box.right - 1
            && box.top < other.bottom - 1 && other.top < box.bottom - 1)
        .map(([other]) => `${plot.dataset.figure}: ${text}, ${other}`));
}))"""
"""Pairs of labels of an axis that lie over each other."""

CONTRAST = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const linear = (share) => (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.slice(0, 3).map((channel) => linear(channel / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = channels(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const texts = "h1, h2, h3, p, td, th, a, dt, dd, caption, code, strong, figcaption, li";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.textContent.trim() || element.closest(".plot")) continue;
    const [one, other] = [channels(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push([ratio, element.outerHTML.slice(0, 80)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""
"""Contrast of each text with what is behind it, as WCAG 2.1 defines it, the lowest first."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_dark(desktop: tuple[Page, Watch], scheme: Any) -> None:
    page, _ = desktop
    page.emulate_media(color_scheme=scheme)
    try:
        found = page.evaluate(CONTRAST)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    finally:
        page.emulate_media(color_scheme="null")
    assert len(found) > 50
    assert found[0][0] >= 4.5, found[:3]
    assert (paper == "rgb(255, 255, 255)") is (scheme == "light")


def test_accuracies_are_visible_on_a_phone(phone: tuple[Page, Watch]) -> None:
    page, _ = phone
    for table, names in (("finals", ("validation", "test")), ("leaderboard", ("accuracy",))):
        heads = page.locator(f"#{table} thead th")
        texts = [text.split("\xa0")[0].strip() for text in heads.all_inner_texts()]
        for name in names:
            box = heads.nth(texts.index(name)).bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= PHONE
