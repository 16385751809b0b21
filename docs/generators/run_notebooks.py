"""Run the notebooks and write them in place with their outputs: ``make notebooks``, or ``make notebooks ARGS=NAME``.

GitHub and the site show these outputs without running anything. A second run changes as little as training allows:
figures become pictures, nothing reports progress, and no output or metadata tells when or on which machine it was made.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from plotly.graph_objects import Figure

from budgetnet.common.files import write_text
from budgetnet.visualization.figures import write_figure

FOLDER = Path(__file__).parents[1] / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
COLOURS = 128
"""Colours of a picture. Figures have few, and with all that a PNG file can have it is four times as large."""


def main(names: list[str]) -> int:
    """Run the notebooks of these names, by default all, and write each when it has run to its end."""
    paths = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    if unknown := [name for name in names if name not in paths]:
        print(f"notebook = {unknown[0]}: must be {', '.join(paths)}", file=sys.stderr)
        return 2
    for name in names or paths:
        print(f"running {paths[name].name}", flush=True)
        notebook = run_notebook(paths[name])
        write_text(paths[name], nbformat.writes(notebook) + "\n")  # type: ignore[no-untyped-call]
    return 0


def run_notebook(path: Path) -> NotebookNode:
    """Run a notebook in a kernel of its own, and return it with its outputs and the digest of its code."""
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    kernel, language = notebook.metadata.kernelspec, {"name": "python"}
    with TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "BUDGETNET_VERBOSITY": "quiet",
            "IPYTHONDIR": folder,  # without the settings of this user
            "OMP_NUM_THREADS": "1",  # sums of floats depend on it
            "PLOTLY_RENDERER": "plotly_mimetype",
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm, where ipywidgets are missing
        }
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name=kernel.name,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(path.parent)}},
        ).execute(env=environment)
        for cell in code_cells(notebook):
            for output in cell.outputs:
                if PLOTLY in output.get("data", {}):
                    _make_picture(output, Path(folder) / "figure.png")
    # Without the version of Python, which the kernel has added.
    metadata = {"code_digest": code_digest(notebook), "kernelspec": kernel, "language_info": language}
    notebook.metadata = nbformat.from_dict(metadata)  # type: ignore[no-untyped-call]
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_digest(notebook: NotebookNode) -> str:
    """Return a digest of a notebook's code; the stored one tells which code its outputs belong to."""
    code = json.dumps([cell.source for cell in code_cells(notebook)])
    return hashlib.sha256(code.encode()).hexdigest()


def _make_picture(output: NotebookNode, path: Path) -> None:
    """Put a picture and its description in words in place of a Plotly figure, which needs a script to be seen."""
    figure = Figure(output.data[PLOTLY])
    write_figure(figure, path)
    picture = io.BytesIO()
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(picture, "PNG", optimize=True)
    meta = figure.layout.meta
    data = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": meta["alt"]}
    # The picture has twice the resolution of what is shown.
    shown = {"image/png": {"alt": meta["alt"], "width": meta["width"]}}
    output.data, output.metadata = nbformat.from_dict(data), nbformat.from_dict(shown)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
