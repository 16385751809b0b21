"""Figures as files: a page that needs no network, a picture, or the figure itself as data."""

from __future__ import annotations

import logging
import os
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.common.errors import InputError
from budgetnet.common.files import write_bytes, write_text
from budgetnet.visualization.figures.style import FAINT, FONT, INK

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SUFFIXES = (".html", ".svg", ".png", ".json")
"""What a figure's file may end in."""

# Nothing may be fetched, whatever the script would like to; Plotly writes its own scripts and styles into the page.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_STYLE = f"""
body {{ margin: 0 auto; padding: 16px; font-family: {FONT}; color: {INK}; background: #fff; }}
h1 {{ font-size: 1.25rem; margin: 0 0 4px; overflow-wrap: anywhere; }}
p, figcaption {{ font-size: 0.875rem; line-height: 1.45; margin: 0; color: {FAINT}; overflow-wrap: anywhere; }}
figure {{ margin: 8px 0 0; }}
figcaption {{ margin-top: 12px; }}
"""


def write_figure(figure: Figure, path: Path, *, field: str = "figure") -> None:
    """Writes a figure atomically, in the format that the file's name ends in.

    ``.html`` is one page that fetches nothing; ``.svg`` and ``.png`` are drawn by kaleido in an installed Chromium;
    ``.json`` is the figure as Plotly reads it.

    Args:
        figure: one of this package, with its title, note and text alternative.
        path: the file.
        field: what to call the path in an error, for example ``--plot``.

    Raises:
        InputError: as `require_writable`, or there is no browser to draw with.
    """
    require_writable(path, field=field)
    suffix = path.suffix.lower()
    if suffix == ".html":
        write_text(path, _page(figure))
    elif suffix == ".json":
        write_text(path, figure.to_json())
    else:
        write_bytes(path, _picture(figure, path, field=field))


def require_writable(path: Path, *, field: str = "figure") -> None:
    """Refuses a figure's file before any work is done for it.

    Raises:
        InputError: the file's name ends in no format that is known, its folder is missing or closed, or what draws SVG
            and PNG is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(field, str(path), f"must end in {', '.join(SUFFIXES)}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(field, str(path), "must be a file in a folder that exists and can be written to")
    if suffix in (".svg", ".png") and find_spec("kaleido") is None:
        rule = "needs the extra budgetnet[figures], and Chromium or Chrome; .html needs neither"
        raise InputError(field, str(path), rule)


def bare(figure: Figure) -> Figure:
    """The figure without its title and note, for a page that has them: those within a figure do not wrap."""
    from plotly.graph_objects import Figure

    drawn, layout = Figure(figure), figure.layout
    top = 8 + layout.meta["above"]
    drawn.update_layout(title=None, margin={"t": top}, height=layout.height - layout.margin.t + top)
    return drawn


def _page(figure: Figure) -> str:
    """The figure as a page."""
    drawn, layout = bare(figure), figure.layout
    words = {key: escape(layout.meta[key]) for key in ("title", "note", "alt")}
    config = {"displayModeBar": False, "responsive": True}
    plot = drawn.to_html(full_html=False, include_plotlyjs=True, config=config)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{words["title"]}</title>
<style>{_STYLE}</style>
</head>
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

    # It logs, with a traceback, what it then ignores, such as a browser's last words that are no message.
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    size = {"width": figure.layout.meta["width"], "height": figure.layout.height}
    # A picture of pixels is drawn twice as fine, for screens that are, and for print.
    options = {**size, "format": path.suffix[1:].lower(), "scale": 2 if path.suffix.lower() == ".png" else 1}
    try:
        # Called by itself, and not through Plotly, it can be kept from fetching MathJax, which no figure here needs.
        drawn: bytes = kaleido.calc_fig_sync(figure.to_dict(), opts=options, kopts={"mathjax": False})
    except ChromeNotFoundError:
        rule = "needs Chromium or Chrome to be installed, such as Debian's package chromium; .html needs neither"
        raise InputError(field, str(path), rule) from None
    except RuntimeError as error:  # A browser that does not start, or ends before it has drawn.
        rule = f"cannot be drawn; .html needs no browser: {' '.join(str(error).split())[:200]}"
        raise InputError(field, str(path), rule) from None
    return drawn
