"""The notebooks, kept with what they show, and run anew: by IPython's shell, and, slower, in a kernel of their own."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser_support import needs_chromium
from nbformat import NotebookNode
from process_support import AVAILABLE, ForkedProcess, python_code
from run_notebooks import PLOTLY, code_cells, code_digest, main, run_notebook
from support import child_environment

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
WANTED = {"specs-and-budgets", "search-and-inspect", "ablate-and-test", "reproduce-the-paper"}
LARGEST = 300_000
"""Bytes of a notebook with its pictures."""
# Of the machine, or of the moment: folders of users and temporary ones, addresses in memory, times.
ELSEWHERE = re.compile(
    r"(?<![\w.])/(?:home|root|Users|tmp|var|private|work|opt|mnt)/\w|\b0x[0-9a-f]{6,}|\d{4}-\d\d-\d\dT\d\d"
)

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def command(path: Path) -> str:
    return f"make notebooks ARGS={path.stem}"


def test_there_are_the_four_that_the_documentation_names() -> None:
    assert {path.stem for path in NOTEBOOKS} == WANTED


@each_notebook
def test_stored_outputs_belong_to_the_present_code(path: Path) -> None:
    notebook = read(path)
    assert notebook.metadata.get("code_digest") == code_digest(notebook), f"code changed, run: {command(path)}"


@each_notebook
def test_a_notebook_was_run_from_its_first_cell_to_its_last(path: Path) -> None:
    notebook = read(path)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), command(path)
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert {output.get("name", "stdout") for cell in cells for output in cell.outputs} == {"stdout"}
    shown = {kind for cell in cells for output in cell.outputs for kind in output.get("data", {})}
    assert shown == {"text/plain", "text/html", "image/png"}


@each_notebook
def test_a_notebook_is_small_and_tells_nothing_of_where_it_ran(path: Path) -> None:
    assert path.stat().st_size <= LARGEST
    notebook = read(path)
    assert set(notebook.metadata) == {"code_digest", "kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        assert re.fullmatch(rf"{path.stem[:3]}-\d\d", cell.id)
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = {kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"}
            told = json.dumps([data, output.get("metadata", {}), output.get("text", "")])
            assert not ELSEWHERE.findall(told), cell.id
            assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", told), cell.id


@pytest.mark.parametrize(
    "text", ["in /tmp/x1/runs", "'/home/ann/data'", "<object at 0x7f3a5c2b1d90>", '"time": "2026-01-31T10:59:12"']
)
def test_what_only_one_machine_would_tell_is_found(text: str) -> None:
    assert ELSEWHERE.search(text)


def test_a_wrong_name_of_a_notebook_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["specs"]) == 2
    assert capsys.readouterr().err == f"notebook = specs: must be {', '.join(sorted(WANTED))}\n"


SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
shown = []

def keep(result):
    if result is not None:
        shown.append(shell.display_formatter.format(result)[0])

shell.display_trap.hook = keep
given = []
for cell in json.loads(sys.argv[1]):
    shown = []
    with capture_output() as captured:
        shell.run_cell(cell).raise_error()
    given.append([captured.stdout, [*filter(None, shown), *(output.data for output in captured.outputs)]])
print(json.dumps(given))
"""


def stored(cell: NotebookNode) -> list[Any]:
    """What a cell printed and what it showed, in the form of `SHELL`."""
    printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    return [printed, [dict(output.data) for output in cell.outputs if output.output_type != "stream"]]


def seen(given: list[Any]) -> list[dict[str, str]]:
    """What a reader of a cell's outputs sees; of a figure, its description."""
    printed, shown = given
    texts = [{"stdout": printed}]
    for data in shown:
        if PLOTLY in data:
            texts.append({"text/plain": data[PLOTLY]["layout"]["meta"]["alt"]})
        else:
            # The text of a pandas table depends on the terminal.
            kind = "text/html" if "text/html" in data else "text/plain"
            texts.append({kind: data[kind]})
    return texts


@pytest.mark.skipif(not AVAILABLE, reason="this system forks no processes from a server")
@each_notebook
def test_stored_outputs_are_those_of_a_forked_process(path: Path, tmp_path: Path) -> None:
    cells = code_cells(read(path))
    code = json.dumps([cell.source for cell in cells])
    environment = {**child_environment(), "IPYTHONDIR": str(tmp_path), "PLOTLY_RENDERER": "plotly_mimetype"}
    with ForkedProcess([SHELL, code], cwd=path.parent, environment=environment, function=python_code) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    for cell, outputs in zip(cells, json.loads(out.splitlines()[-1]), strict=True):
        if "measured" in cell.metadata.get("tags", []):
            # Accuracies differ between machines.
            now, before = ([set(each) for each in seen(given)] for given in (outputs, stored(cell)))
            assert now == before, cell.id
        else:
            assert seen(outputs) == seen(stored(cell)), f"{cell.id} shows something else, run: {command(path)}"


@needs_chromium
@pytest.mark.slow
@each_notebook
def test_stored_outputs_are_those_of_a_kernel(path: Path) -> None:
    now, kept = run_notebook(path), read(path)
    assert now.metadata == kept.metadata
    for cell, before in zip(now.cells, kept.cells, strict=True):
        if cell.cell_type == "code" and "measured" not in cell.metadata.get("tags", []):
            assert seen(stored(cell)) == seen(stored(before)), cell.id
        assert (cell.id, cell.metadata, cell.get("execution_count")) == (
            before.id,
            before.metadata,
            before.get("execution_count"),
        )
