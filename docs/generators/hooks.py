"""What the documentation is given while it is built: references made from the code itself, and notebooks as pages.

Nothing that is made here is kept, so no page can say other than the code does.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from pathlib import Path

import nbformat
from api_page import api_page
from command_page import command_line_page
from document_page import DOCUMENTS, document_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the code, and the notebooks."""
    pages = {f"reference/{name}.md": document_page(name) for name in DOCUMENTS}
    pages["reference/command-line.md"] = command_line_page()
    pages["reference/python.md"] = api_page()
    for path in sorted((Path(config.docs_dir) / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{path.stem}.md"], pictures = notebook_page(path)
        for name, picture in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


_ROOT = Path(__file__).parents[2]
_MADE_FROM = {
    **{
        str(Path(inspect.getfile(kind.model)).relative_to(_ROOT)): f"reference/{name}.md"
        for name, kind in DOCUMENTS.items()
    },
    "README.md#on-the-command-line": "reference/command-line.md",
}
"""Pages that are made while the site is built, by what pages link to in their place, which a checkout has too."""
_FOLDERS = re.compile(r"\]\((?P<target>[^)\s]+/[^)\s]+)\)")
_OUTSIDE = re.compile(r"\[(?P<words>[^\]]+)\]\((?:\.\./)+(?P<path>(?:studies|tests|budgetnet)/?[^)]*)\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - as called
    """Leads links to the pages that are made here, and names the paths of what else lies outside the documentation."""
    folder = posixpath.dirname(page.file.src_uri)
    return _OUTSIDE.sub(_named_path, _FOLDERS.sub(lambda link: _led_to_page(link, folder), markdown))


def _led_to_page(link: re.Match[str], folder: str) -> str:
    """Return a link to a notebook, or to what a reference stands for, as one to its page; another link as it is."""
    target = posixpath.normpath(posixpath.join("docs", folder, link["target"]))
    notebook = re.fullmatch(r"docs/(notebooks/.+)\.ipynb", target)
    place = f"{notebook[1]}.md" if notebook else _MADE_FROM.get(target)
    return link[0] if place is None else f"]({posixpath.relpath(place, folder or '.')})"


def _named_path(link: re.Match[str]) -> str:
    words, path = link["words"], link["path"].rstrip("/")
    return words if path in words else f"{words} (`{path}`)"


# A class tells outputs apart from code. Tables lose that of pandas, so that they look like those of other pages, and
# pictures have the description and the width of their figures.
_NOTEBOOK = """{% extends 'markdown/index.md.j2' %}
{% block stream %}
<pre class="output">{{ output.text | escape }}</pre>
{% endblock stream %}
{% block data_text %}
<pre class="output">{{ output.data['text/plain'] | escape }}</pre>
{% endblock data_text %}
{% block data_html %}
<div class="output">
{{ output.data['text/html'] | replace('<table border="1" class="dataframe">', '<table>') }}
</div>
{% endblock data_html %}
{% block data_png %}
{% set shown = output.metadata['image/png'] %}
<img alt="{{ shown.alt | escape }}" width="{{ shown.width }}" src="{{ output.metadata.filenames['image/png'] }}">
{% endblock data_png %}
"""


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook with its outputs as a page with a link to the notebook itself, and the pictures in it."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    resources = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    exporter = MarkdownExporter(raw_template=_NOTEBOOK)  # type: ignore[no-untyped-call]
    body, found = exporter.from_notebook_node(notebook, resources=resources)
    title, _, rest = body.strip().partition("\n")
    note = f"The tests run this notebook. [Download it]({path.name}) and run it yourself."
    # Without a table of contents, tables and lines of code have room.
    return f"---\nhide: [toc]\n---\n{title}\n\n{note}\n{rest}\n", found.get("outputs") or {}
