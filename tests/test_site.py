"""The documentation as a site: built without a warning, whole, read without a network, and true of the code."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer.main
import yaml
from browser_support import DESKTOP, PHONE, launched, needs_chromium, opened, overflow
from documented_support import PAGES, ROOT, blocks_of, commands_of, name_of
from site_support import read

import budgetnet
from budgetnet.cli.main import app
from budgetnet.common.documents import Document
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.study.space import SearchSpace

DOCUMENTS: dict[str, type[Document]] = {
    "spec": ModelSpec,
    "recipe": Recipe,
    "space": SearchSpace,
    "ablation": AblationStudy,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    told = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "WARNING" not in told.stderr
    return folder


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    fetched = {address for page in pages for address in read(page).addresses}
    assert len(pages) > 30
    assert fetched
    # What an address of this kind names, it holds.
    asked = {address for address in fetched if not address.startswith("data:image/")}
    assert not {address for address in asked if urlsplit(address).scheme or urlsplit(address).netloc}
    sheets = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheets)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_reference_holds_every_field_with_its_default_and_its_meaning(site: Path, name: str) -> None:
    rows = {tuple(cell.strip() for cell in row) for row in read(site / "reference" / f"{name}.html").rows}
    for field, info in DOCUMENTS[name].model_fields.items():
        (row,) = [row for row in rows if row[0] == field and row[3] == said(info.description or "")]
        default = info.get_default(call_default_factory=True)
        if info.is_required():
            assert row[2] == "required"
        elif isinstance(default, Document):
            assert row[2] == f"{type(default).__name__} as it stands"
        elif isinstance(default, str) and default:
            assert row[2] == default
        else:
            assert json.loads(row[2]) == (list(default) if isinstance(default, tuple) else default)


def said(text: str) -> str:
    """A docstring as a reader sees it."""
    return " ".join(text.replace("`", "").split())


@pytest.mark.parametrize(
    ("page", "field", "rule"),
    [
        # Read off the rules that tests of specification, recipe and space hold.
        ("spec", "input_shape", "list of: whole number from 1 to 1,024; whole number from 1 to 4,096; whole number"),
        ("spec", "kernel_sizes", "list of 2, each odd whole number from 1 to 31"),
        ("spec", "bottleneck_ratio", "number above 0 and at most 8, or null"),
        ("spec", "block", "basic or preact or bottleneck"),
        ("recipe", "split_seed", "whole number at least 0 and below 4,294,967,296"),
        ("space", "growth", "list of at least 1, each number above 0 and at most 8"),
        ("ablation", "fit", "true or false, or both"),
    ],
)
def test_a_reference_tells_rules_in_words(site: Path, page: str, field: str, rule: str) -> None:
    assert any(
        row[0].strip() == field and row[1].strip().startswith(rule)
        for row in read(site / "reference" / f"{page}.html").rows
    )


def verbs(command: Any, context: Any, path: str = "") -> dict[str, set[str]]:
    """Every verb with its options."""
    found: dict[str, set[str]] = {}
    for name in command.list_commands(context):
        verb = command.get_command(context, name)
        place = f"{path} {name}".strip()
        if hasattr(verb, "list_commands"):
            found |= verbs(verb, context, place)
        else:
            found[place] = {option for each in verb.params for option in (*each.opts, *each.secondary_opts)}
    return found


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    command: Any = typer.main.get_command(app)
    return verbs(command, command.make_context("budgetnet", [], resilient_parsing=True))


def test_the_reference_of_the_command_line_holds_every_verb_and_option(
    site: Path, options: dict[str, set[str]]
) -> None:
    text = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h[23] id="([^"]+)">(.*?)(?=<h[23] |</article>)', text, flags=re.DOTALL))
    assert len(options) > 20
    for verb, names in options.items():
        section = sections[verb.replace(" ", "-")]
        shown = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", section))
        assert {name for name in names if name.startswith("-")} <= shown | {"--help", "-h"}, verb


def test_options_in_running_text_exist(options: dict[str, set[str]]) -> None:
    known = {option for names in options.values() for option in names} | {"--version", "--help"}
    others = {"--artifact-dir", "--torch-backend"}  # of optuna-dashboard and of uv
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for code in re.findall(r"`([^`]+)`", text):
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
                assert option in known | others, f"{name_of(page)}: {option}"
            if verb := re.match(r"budgetnet ([a-z]+(?: [a-z]+)?)", code):
                first = verb[1].partition(" ")[0]
                assert any(name.partition(" ")[0] == first for name in options), f"{name_of(page)}: {code}"


def test_every_page_and_notebook_is_in_the_navigation() -> None:
    class Loader(yaml.SafeLoader):
        """Passes by what only mkdocs knows."""

    Loader.add_multi_constructor("!", lambda *_: None)

    def listed(part: Any) -> list[str]:
        if isinstance(part, str):
            return [part]
        parts = part.values() if isinstance(part, dict) else part
        return [place for inner in parts for place in listed(inner)]

    navigation = listed(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])
    docs = ROOT / "docs"
    written = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    notebooks = {f"notebooks/{path.stem}.md" for path in (docs / "notebooks").glob("*.ipynb")}
    references = {f"reference/{name}.md" for name in [*DOCUMENTS, "command-line", "python"]}
    assert sorted(navigation) == sorted(written | notebooks | references)


def anchors(page: Path) -> set[str]:
    """Names of a page's headings as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "studies").rglob("*.md"))], ids=name_of)
def test_links_in_the_checkout_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = page.parent / unquote(parts.path) if parts.path else page
        assert target.exists(), link
        assert not parts.fragment or parts.fragment in anchors(target), link


@pytest.mark.parametrize(
    ("page", "words", "address"),
    [
        ("index", "search and inspect", "notebooks/search-and-inspect.html"),
        ("howto/export", "search and inspect", "../notebooks/search-and-inspect.html"),
        ("index", "commands and options", "reference/command-line.html"),
        ("files", "space", "reference/space.html"),
        ("howto/own-space", "space.yaml", "../reference/space.html"),
        ("index", "spec", "reference/spec.html"),
        ("howto/gpu", "recipe", "../reference/recipe.html"),
        ("index", "ablation", "reference/ablation.html"),
    ],
)
def test_links_to_what_pages_are_made_from_lead_to_these_pages(site: Path, page: str, words: str, address: str) -> None:
    text = (site / f"{page}.html").read_text(encoding="utf-8")
    assert f'<a href="{address}">{words}</a>' in text
    assert (site / f"{page}.html").parent.joinpath(address).exists()


def test_pages_name_paths_outside_in_place_of_links(site: Path) -> None:
    text = (site / "reproduction.html").read_text(encoding="utf-8")
    assert "study (<code>studies/leakage</code>)" in text
    assert 'href="../studies' not in text


def test_a_notebook_is_a_page_with_its_code_and_itself_beside_it(site: Path) -> None:
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        text = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert f'href="{path.name}"' in text
        assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()
        code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        assert text.count('<div class="highlight">') >= len(code)


def test_the_page_of_a_notebook_shows_its_stored_outputs(site: Path) -> None:
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        text = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in (output for cell in cells for output in cell.get("outputs", [])):
            data = output.get("data", {})
            if "image/png" in data:
                words = output["metadata"]["image/png"]["alt"]
                (source,) = re.findall(rf'<img alt="{re.escape(words)}" width="\d+" src="([^"]+)"', text)
                assert (site / "notebooks" / source).read_bytes() == b64decode(data["image/png"])
            elif "text/html" in data:
                # Rows of tables, since the page has its own look of them.
                rows = re.findall(r"<t[dh]\b[^>]*>[^<]+", "".join(data["text/html"]))
                assert rows
                assert [row for row in rows if row not in text] == []
            else:
                shown = "".join(data.get("text/plain", output.get("text", [])))
                assert f'<pre class="output">{shown}' in unescape(text)


def test_what_the_tutorial_enters_is_on_its_page(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "tutorial.html").read_text(encoding="utf-8"))
    commands = [each.text for block in blocks_of(ROOT / "docs" / "tutorial.md") for each in commands_of(block)]
    assert len(commands) > 10
    assert [command for command in commands if command not in text] == []


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def test_the_reference_of_the_python_api_holds_every_name_with_its_arguments_and_docstring(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    parts = re.split(r'<h2 id="[^"]*">(\w+)<', page)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(sections) == dir(budgetnet)
    for name, section in sections.items():
        thing = getattr(budgetnet, name)
        text = " ".join(unescape(re.sub(r"<[^>]+>", "", section)).split())
        first = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].replace("`", "").split())
        assert first
        assert first in text
        if inspect.isfunction(thing):
            assert set(inspect.signature(thing).parameters) <= set(re.findall(r"\w+", text))
    assert "ModelSpec.build" in page


@needs_chromium
def test_search_finds_pages_of_a_site_on_a_disk(site: Path) -> None:
    with launched() as browser, opened(browser, (site / "howto" / "gpu.html").as_uri()) as (page, watch):
        query = page.get_by_role("textbox", name="Search")
        query.click()
        query.press_sequentially("squeeze_excitation_ratio")
        page.locator(".md-search-result__item").first.wait_for()
        assert "reference/" in str(page.locator(".md-search-result__link").first.get_attribute("href"))
        assert watch.foreign == []


@needs_chromium
def test_pages_fit_a_phone_and_are_found_without_a_network(site: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        with launched() as browser:
            address = f"http://127.0.0.1:{server.server_port}"
            references = [f"reference/{name}" for name in ("spec", "command-line", "python")]
            notebooks = [f"notebooks/{path.stem}" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")]
            for place in ("index", *references, *notebooks):
                with opened(browser, f"{address}/{place}.html", width=DESKTOP) as (page, watch):
                    page.wait_for_load_state("networkidle")
                    assert overflow(page) == 0, place
                    page.set_viewport_size({"width": PHONE, "height": 900})
                    assert (overflow(page), watch.complaints, watch.foreign) == (0, [], []), place
            with opened(browser, f"{address}/index.html") as (page, watch):
                page.wait_for_load_state("networkidle")
                query = page.get_by_role("textbox", name="Search")
                query.click()
                query.press_sequentially("squeeze_excitation_ratio")
                page.locator(".md-search-result__item").first.wait_for()
                found = page.locator(".md-search-result__link").first.get_attribute("href")
                assert "reference/" in str(found)
                assert watch.foreign == []
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
