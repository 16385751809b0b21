"""Markdown from texts that may hold anything: names of studies, reasons, paths."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

_MEANING = re.compile(r"[\\`*_{}\[\]()<>#|~&$]|(?<=\w)[:.@](?=\S)")
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
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, marks, *rows))


def block(text: str) -> str:
    """A text as code, to be copied; whatever stands in it, it does not end the block."""
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
