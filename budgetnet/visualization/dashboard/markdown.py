"""Markdown from texts that may hold anything: names of studies, reasons, paths."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

_MEANING = re.compile(r"[\\`*_{}\[\]()<>#|~&$]|:(?=//)|(?<=www)\.|(?<=\S)@")
"""What Markdown, its tables, its formulas and its bare links give a meaning to within a line."""


def plain(text: str) -> str:
    """A text that is shown as it stands, on one line and not at the start of one."""
    return _MEANING.sub(r"\\\g<0>", " ".join(text.split()))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """A table of texts that are Markdown already.

    Args:
        headings: of the columns.
        rows: a text for each column.
        right: places of the columns whose texts stand at the right, as numbers do.
    """
    marks = ["--:" if column in right else ":--" for column in range(len(headings))]
    spaced = [[_spaced(cells, column, right) for column in range(len(headings))] for cells in (headings, *rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (spaced[0], marks, *spaced[1:]))


def _spaced(cells: Sequence[str], column: int, right: Collection[int]) -> str:
    """A cell with a wide space on the side of its neighbour: nothing else parts columns where notes are shown."""
    before = "\u2003" if column in right and column > 0 else ""
    behind = "\u2003" if column not in right and column < len(cells) - 1 else ""
    return f"{before}{cells[column]}{behind}"


def code(text: str) -> str:
    """A text as code, to be copied; whatever stands in it, it does not end the code.

    Within a line, as that is broken where it is too long for a screen; code of several lines is not.
    """
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    if text.split() != text.split(" "):
        fence = "`" * max(3, longest + 1)
        return f"{fence}\n{text}\n{fence}"
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"`{text}`"
