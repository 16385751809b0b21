"""Writing of figures as HTML, SVG, PNG or JSON."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetnet.common.errors import InputError
from budgetnet.common.extras import require_extra
from budgetnet.common.files import write_bytes, write_text
from budgetnet.visualization.figures.style import FAINT, FONT, INK

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SUFFIXES = (".html", ".svg", ".png", ".json")
"""Supported file extensions."""

PLOTLY_FILE = "plotly.min.js"
"""Plotly's script, which the figures of a folder may share."""

# Forbid all requests, except for the shared script; Plotly writes inline scripts and styles.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'{shared}; style-src 'unsafe-inline'; img-src data: blob:"
_STYLE = f"""
body {{ margin: 0 auto; padding: 16px; font-family: {FONT}; color: {INK}; background: #fff; }}
h1 {{ font-size: 1.25rem; margin: 0 0 4px; overflow-wrap: anywhere; }}
p, figcaption {{ font-size: 0.875rem; line-height: 1.45; margin: 0; color: {FAINT}; overflow-wrap: anywhere; }}
figure {{ margin: 8px 0 0; }}
figcaption {{ margin-top: 12px; }}
"""


def write_figure(figure: Figure, path: Path, *, shared_script: bool = False, field: str = "figure") -> None:
    """Write a figure atomically, in the format given by the file's extension.

    ``.html`` is one page that fetches nothing; ``.svg`` and ``.png`` are drawn by kaleido in an installed Chromium;
    ``.json`` is the figure as Plotly reads it.

    Args:
        figure: one of this package, with its title, note and text alternative.
        path: the file.
        shared_script: whether an HTML page loads Plotly from `PLOTLY_FILE` beside it, which is written if it is missing
            or of another version, rather than contain its five megabytes.
        field: what to call the path in an error, for example ``--plot``.

    Raises:
        InputError: as `require_writable`, or there is no browser to draw with.
    """
    require_writable(path, field=field)
    suffix = path.suffix.lower()
    if suffix == ".html":
        if shared_script:
            _write_script(path.parent / PLOTLY_FILE)
        write_text(path, _page(figure, shared_script=shared_script))
    elif suffix == ".json":
        write_text(path, figure.to_json())
    else:
        write_bytes(path, _picture(figure, path, field=field))


def require_writable(path: Path, *, field: str = "figure") -> None:
    """Check that a figure can be written to a file.

    Raises:
        InputError: the file's name ends in no format that is known, its folder is missing or closed, or what draws SVG
            and PNG is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(field, str(path), f"must end in {', '.join(SUFFIXES)}")
    require_place(path, field=field)
    if suffix in (".svg", ".png"):
        remark = "; Chromium or Chrome is needed as well, and .html needs neither"
        require_extra("figures", "kaleido", field=field, value=str(path), remark=remark)


def require_place(path: Path, *, field: str) -> None:
    """Check that there can be a file of that name.

    Raises:
        InputError: it is a folder, or its folder is missing or not writable.
    """
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(field, str(path), "must be a file in a folder that exists and can be written to")


def bare(figure: Figure) -> dict[str, Any]:
    """Return the figure as Plotly reads it, without title and note: they do not wrap in it and are part of the page."""
    content: dict[str, Any] = figure.to_plotly_json()
    layout = content["layout"]
    top = 8 + layout["meta"]["above"]
    del layout["title"]
    layout["height"] += top - layout["margin"]["t"]
    layout["margin"]["t"] = top
    return content


def _write_script(path: Path) -> None:
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs().encode()
    if not path.exists() or path.read_bytes() != script:
        write_bytes(path, script)


def _page(figure: Figure, *, shared_script: bool) -> str:
    """Return the figure as an HTML page."""
    from plotly.io import to_html

    layout = figure.layout
    words = {key: escape(layout.meta[key]) for key in ("title", "note", "alt")}
    config = {"displayModeBar": False, "responsive": True}
    parts = {"full_html": False, "include_plotlyjs": not shared_script}
    plot = to_html(bare(figure), config=config, validate=False, **parts)
    policy = _POLICY.format(shared=" 'self'" if shared_script else "")
    script = f'<script src="{PLOTLY_FILE}"></script>\n' if shared_script else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{words["title"]}</title>
<style>{_STYLE}</style>
{script}</head>
<body style="max-width: {layout.meta["width"]}px">
<h1>{words["title"]}</h1>
<p>{words["note"]}</p>
<figure>
<div role="img" aria-labelledby="alternative">{plot}</div>
<figcaption id="alternative">{words["alt"]}</figcaption>
</figure>
</body>
</html>
"""


def _picture(figure: Figure, path: Path, *, field: str) -> bytes:
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    # Kaleido logs errors with tracebacks that it then ignores, such as malformed last messages of the browser.
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    size = {"width": figure.layout.meta["width"], "height": figure.layout.height}
    # PNG files have twice the resolution, for high-density screens and print.
    options = {**size, "format": path.suffix[1:].lower(), "scale": 2 if path.suffix.lower() == ".png" else 1}
    content = figure.to_dict()
    for number, trace in enumerate(content["data"]):
        # Else a random one, which SVG files contain.
        trace.setdefault("uid", str(number))
    try:
        # Call Kaleido directly instead of through Plotly, to prevent the download of MathJax.
        drawn: bytes = kaleido.calc_fig_sync(content, opts=options, kopts={"mathjax": False})
    except ChromeNotFoundError:
        rule = "needs Chromium or Chrome to be installed, such as Debian's package chromium; .html needs neither"
        raise InputError(field, str(path), rule) from None
    except RuntimeError as error:  # The browser does not start, or ends early.
        rule = f"cannot be drawn; .html needs no browser: {' '.join(str(error).split())[:200]}"
        raise InputError(field, str(path), rule) from None
    return _with_stable_ids(drawn) if path.suffix.lower() == ".svg" else drawn


def _with_stable_ids(drawn: bytes) -> bytes:
    """Return an SVG document in which the random part of Plotly's ids is replaced by a digest of the rest.

    So equal figures give equal files, and one page can contain several.
    """
    found = re.search(rb'id="topdefs-([0-9a-f]{6})"', drawn)
    if found is None:
        return drawn
    digest = hashlib.sha256(drawn.replace(found[1], b"")).hexdigest()[:6]
    return drawn.replace(found[1], digest.encode())
