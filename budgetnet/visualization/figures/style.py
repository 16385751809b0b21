"""One look for every figure: colours that the colour-blind tell apart, a white ground, and words that say the same.

Source of the colours:
    M. Okabe, K. Ito (2008), "Color Universal Design: How to make figures and presentations that are friendly to
    Colorblind people".
"""

from __future__ import annotations

import textwrap
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"

INK = "#222222"
"""Text."""
FAINT = "#595959"
"""Secondary text, with a contrast of 7:1 as WCAG requires for small text."""
RULE = "#D9D9D9"
"""Grids and borders."""
WASH = "#F4F6F8"
"""Background of groups."""

LEGEND_HEIGHT = 32
"""Height of a one-line legend, in pixels."""
FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
WIDTH = 900
"""Width of images in pixels; on a page, figures shrink with the window."""


def blank_figure(*, title: str, note: str, alt: str, height: int, width: int = WIDTH, above: int = 0) -> Figure:
    """Return an empty figure in the common style, which adapts to the width of its container.

    Args:
        title: what is shown, in a few words.
        note: data and conditions, in smaller text below the title.
        alt: text alternative: a sentence that describes what the figure shows.
        height: height of the plot with its axes, in pixels.
        width: of a picture of it, in pixels, and the most on a page.
        above: room for a legend between the note and what is drawn, in pixels.
    """
    from plotly.graph_objects import Figure

    # Plotly does not wrap titles; these widths fit any letters.
    head, notes = textwrap.wrap(title, width // 10), textwrap.wrap(note, width // 7)
    top = 44 + 22 * len(head) + 17 * len(notes) + above
    # In one step: each update copies and checks the whole template again.
    figure = Figure(
        layout={
            "template": "plotly_white",
            "font": {"family": FONT, "size": 14, "color": INK},
            "title": {
                "text": "<br>".join(map(literal, head)),
                "font": {"size": 20},
                "subtitle": {"text": "<br>".join(map(literal, notes)), "font": {"size": 13, "color": FAINT}},
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 16},
            },
            "height": height + top,
            "margin": {"t": top, "r": 24, "b": 16, "l": 16},
            "showlegend": True,
            "legend": {
                "font": {"size": 12},
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.01,
                "yanchor": "bottom",
            },
            "meta": {"title": title, "note": note, "alt": alt, "width": width, "above": above},
        }
    )
    style_axes(figure)
    return figure


def style_axes(figure: Figure) -> None:
    """Apply the common style to all axes of a figure."""
    common = {"linecolor": INK, "gridcolor": RULE, "zerolinecolor": RULE, "automargin": True, "title_font_size": 14}
    figure.update_xaxes(ticks="outside", showgrid=False, zeroline=False, **common)
    figure.update_yaxes(**common)


def literal(text: str) -> str:
    """Escape text for Plotly, which interprets some HTML tags."""
    return escape(text, quote=False)


def shortened(text: str, most: int) -> str:
    """Truncate text to a number of characters, ending with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def listed(parts: list[str]) -> str:
    """Join words as an English list: ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
