"""Markdown with escaped text, such as names of studies, reasons and paths."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

_MEANING = re.compile(r"[\\`*_{}\[\]()<>#|~&$]|:(?=//)|(?<=www)\.|(?<=\S)@")
"""Characters with a meaning in Markdown, its tables, formulas and bare links."""


def plain(text: str) -> str:
    """Escape text for use within a line of Markdown."""
    return _MEANING.sub(r"\\\g<0>", " ".join(text.split()))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Return a Markdown table; cells must already be escaped.

    Args:
        headings: column headings.
        rows: one text for each column.
        right: indices of right-aligned columns.
    """
    marks = ["--:" if column in right else ":--" for column in range(len(headings))]
    spaced = [[_spaced(cells, column, right) for column in range(len(headings))] for cells in (headings, *rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (spaced[0], marks, *spaced[1:]))


def _spaced(cells: Sequence[str], column: int, right: Collection[int]) -> str:
    """Return a cell with an em space towards its neighbour, because the dashboard shows tables without padding."""
    before = "\u2003" if column in right and column > 0 else ""
    after = "\u2003" if column not in right and column < len(cells) - 1 else ""
    return f"{before}{cells[column]}{after}"


def code(text: str) -> str:
    """Return text as Markdown code, whatever it contains.

    One line becomes inline code, which wraps on narrow screens; several lines become a fenced block.
    """
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    if text.split() != text.split(" "):
        fence = "`" * max(3, longest + 1)
        return f"{fence}\n{text}\n{fence}"
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"`{text}`"
