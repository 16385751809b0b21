"""The notebooks, run from their first cell to their last: by IPython's shell, and, slower, in a kernel of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from process_support import AVAILABLE, ForkedProcess, python_code
from support import child_environment

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
WANTED = {"specs-and-budgets", "search-and-inspect", "ablate-and-test", "reproduce-the-paper"}


def test_there_are_the_four_that_the_documentation_names() -> None:
    assert {path.stem for path in NOTEBOOKS} == WANTED


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_it_gave(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
shown = []
for cell in json.loads(sys.argv[1]):
    with capture_output() as captured:
        done = shell.run_cell(cell)
        done.raise_error()
        shown.append(shell.display_formatter.format(done.result)[0])
    shown += [output.data for output in captured.outputs]
print(json.dumps([list(data) for data in shown]))
"""


def require_table_and_figure(shown: Iterable[Any]) -> None:
    """That a notebook has a table, a figure, or both, for those who read and those who look."""
    kinds = {kind for data in shown for kind in data}
    assert {"text/html", "application/vnd.plotly.v1+json"} <= kinds


@pytest.mark.skipif(not AVAILABLE, reason="this system forks no processes from a server")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_forked_process(path: Path, tmp_path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = json.dumps(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])
    environment = {**child_environment(), "IPYTHONDIR": str(tmp_path), "PLOTLY_RENDERER": "plotly_mimetype"}
    with ForkedProcess([SHELL, code], cwd=path.parent, environment=environment, function=python_code) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    require_table_and_figure(json.loads(out.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook, timeout=170, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    require_table_and_figure(output.get("data", {}) for cell in code for output in cell.outputs)
