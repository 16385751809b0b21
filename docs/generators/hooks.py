"""What the documentation is given while it is built: references made from the code itself, and notebooks as pages.

Nothing that is made here is kept, so no page can say other than the code does.
"""

from __future__ import annotations

import os
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
from nbconvert.preprocessors import ExecutePreprocessor
from nbformat import NotebookNode


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the code, and the notebooks."""
    pages = {f"reference/{name}.md": document_page(name) for name in DOCUMENTS}
    pages["reference/command-line.md"] = command_line_page()
    pages["reference/python.md"] = api_page()
    for path in sorted((Path(config.docs_dir) / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{path.stem}.md"], pictures = notebook_page(path, run=os.environ.get("NOTEBOOKS") == "run")
        for name, picture in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


_OUTSIDE = re.compile(r"\[(?P<words>[^\]]+)\]\((?:\.\./)+(?P<path>(?:studies|tests|budgetnet)/?[^)]*)\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - as called
    """Names the paths of what lies outside the documentation, in place of links that lead there in a checkout alone."""
    return _OUTSIDE.sub(_named_path, markdown)


def _named_path(link: re.Match[str]) -> str:
    words, path = link["words"], link["path"].rstrip("/")
    return words if path in words else f"{words} (`{path}`)"


def notebook_page(path: Path, *, run: bool) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page with a link to the notebook itself, and the pictures in it.

    Args:
        path: the notebook, which is kept without outputs.
        run: whether to run it, which takes a minute, and show its outputs.
    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    if run:
        _run(notebook, path.parent)
    resources = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    body, found = MarkdownExporter().from_notebook_node(notebook, resources=resources)  # type: ignore[no-untyped-call]
    title, _, rest = body.strip().partition("\n")
    purpose = " and run it yourself" if run else ", run it, and see what it shows"
    note = f"The tests run this notebook. [Download it]({path.name}){purpose}."
    return f"{title}\n\n{note}\n{rest}\n", found.get("outputs") or {}


def _run(notebook: NotebookNode, folder: Path) -> None:
    """Run a notebook; figures become pictures, and progress is left out."""
    os.environ["PLOTLY_RENDERER"] = "svg"
    runner = ExecutePreprocessor(timeout=600, kernel_name="python3")  # type: ignore[no-untyped-call]
    runner.preprocess(notebook, {"metadata": {"path": str(folder)}})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
