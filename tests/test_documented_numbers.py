"""Accuracies in the README and in docs/: each stands in the records or the page of a study that its section links to.

What a page of a study says is compared with its records in `test_studies.py`, `test_studies_recipes.py` and beside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budgetnet.model import published

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "decisions" not in path.parts),
]
NUMBER = re.compile(r"(?<![\w./:=-])[+-]?\d{1,3}\.\d{1,2}(?![\d\w]|\.\d)")
TIMED = "docs/performance.md"
"""Its sections but one state what a command measures on a machine, not what was learned."""
SETTINGS = {"0.05", "0.03", "0.2", "0.5", "0.01", "6.5"}
"""Levels of significance, assumed spreads, learning rates and the width of an interval beside accuracies."""


def sections(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the heading and the text of each section without code and without tables that are written."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```|<!-- table: .*?<!-- end of table -->", "", text, flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    for part in re.split(r"(?m)^(?=#)", text):
        heading, _, rest = part.partition("\n")
        if path.relative_to(ROOT).as_posix() != TIMED or heading == "## Recipe options":
            yield heading, rest


def accuracies(text: str) -> set[str]:
    """Return the numbers with a point in the paragraphs and rows that speak of per cent or points."""
    found: set[str] = set()
    for paragraph in re.split(r"\n\s*\n", text):
        if re.search(r"%|points?\b", paragraph):
            found.update(NUMBER.findall(paragraph))
    return found - SETTINGS


def leaves(value: Any) -> Iterator[float]:
    """Yield the numbers in a record."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, float):
        yield value


def written(share: float) -> set[str]:
    """Return how a page may write a share or a difference of shares."""
    return {f"{100 * share:{sign}.{places}f}" for sign in ("", "+") for places in (1, 2)}


def known(names: set[str]) -> set[str]:
    """Return the numbers of the studies of these names, and the published ones."""
    found: set[str] = set()
    for result in published.results().values():
        for value in (result.accuracy, result.training_accuracy):
            found |= written(value) if value is not None else set()
        if result.images:
            # By statsmodels in `tests/statistics`.
            found |= {"90.84", "91.94"}
    for folder in (ROOT / "studies" / name for name in names):
        for path in folder.rglob("*"):
            if path.suffix in (".md", ".csv"):
                found.update(NUMBER.findall(path.read_text(encoding="utf-8").replace(",", " ")))
            elif path.suffix == ".json" and "runs" not in path.parts:
                for value in leaves(json.loads(path.read_text(encoding="utf-8"))):
                    found |= written(value)
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_an_accuracy_stands_in_a_study_that_its_section_links_to(path: Path) -> None:
    for heading, text in sections(path):
        studies = {name for name in re.findall(r"studies/([\w-]+)", text) if (ROOT / "studies" / name).is_dir()}
        missing = accuracies(text) - known(studies)
        assert not missing, f"{heading}: {sorted(missing)} not in the records of {sorted(studies)}"


def test_numbers_of_a_text_are_found() -> None:
    text = "At 2.15 s.\n\nIt has 94.31 % [94.05, 94.57], +12.4 points; version 0.1.0 of a 3.5x3.5 kernel.\n"
    assert accuracies(text) == {"94.31", "94.05", "94.57", "+12.4"}
