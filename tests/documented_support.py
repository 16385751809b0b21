"""What the documentation shows of commands, programs and files, taken out of its pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+) -->")
"""What stands above a block that no test can run."""
COMMAND = re.compile(r"\s*(?:\$ )?(?:budgetnet|make|python|pip|git|cat|\.) ")
"""What looks like something to enter."""
_FENCE = re.compile(r'```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?')
_INDENT = "    "


class Block(NamedTuple):
    """A block of code on a page."""

    line: int
    """Its first line on the page, counted from 1."""
    language: str
    """As its fence names it; where it is indented, ``shell`` if it begins like a command, else ``text``."""
    title: str | None
    """Name of the file that it holds."""
    text: str
    reason: str | None
    """Why it is not run."""


class Command(NamedTuple):
    """A line that a reader can enter."""

    line: int
    text: str
    output: list[str] | None
    """What the page says that it prints, where it says so; ``...`` stands for anything from there on."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    return list(_blocks(page.read_text(encoding="utf-8").splitlines()))


def _blocks(lines: list[str]) -> Iterator[Block]:
    reason: str | None = None
    number = 0
    while number < len(lines):
        line, first = lines[number], number
        number += 1
        if fence := _FENCE.fullmatch(line):
            end = lines.index("```", number)
            text = "\n".join(lines[number:end])
            yield Block(number + 1, fence["language"], fence["title"], text, reason)
            number, reason = end + 1, None
        elif line.startswith(_INDENT) and (first == 0 or not lines[first - 1].strip()):
            while number < len(lines) and lines[number].startswith(_INDENT):
                number += 1
            text = "\n".join(each.removeprefix(_INDENT) for each in lines[first:number])
            yield Block(first + 1, "shell" if COMMAND.match(text) else "text", None, text, reason)
            reason = None
        elif line.strip():
            marked = NOT_RUN.fullmatch(line)
            reason = marked["reason"] if marked else None


def commands_of(block: Block) -> list[Command]:
    """The lines of a block that can be entered: all of an indented one, and those behind a prompt elsewhere."""
    lines = list(enumerate(block.text.splitlines(), block.line))
    if block.language == "shell":
        return [Command(number, line.partition("  #")[0].strip(), None) for number, line in lines]
    commands: list[Command] = []
    for number, line in lines:
        if line.startswith("$ "):
            commands.append(Command(number, line[2:], []))
        elif commands and commands[-1].output is not None:
            commands[-1].output.append(line)
    return commands
