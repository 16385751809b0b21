"""The reference of the Python API, from the signatures and docstrings of what `import budgetnet` offers."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ForwardRef

from document_page import DOCUMENTS

import budgetnet
from budgetnet.common.documents import Document

_PAGES = {kind.model: name for name, kind in DOCUMENTS.items()}
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Example|Source):$")
_ENTRY = re.compile(r"^(?P<name>[\w*, ]+): (?P<text>.*)$")
_WIDTH = 88
"""Columns from which a signature has a line for each parameter."""


def api_page() -> str:
    """Every public name of the package with its signature and docstring, as a page of Markdown."""
    intro = "`import budgetnet as bn`; all functions and classes below are attributes of `bn`."
    lines = ["# Python API", "", intro, ""]
    for name in dir(budgetnet):
        lines += _described(getattr(budgetnet, name), name, level=2)
    return "\n".join(lines) + "\n"


def _described(thing: Any, name: str, *, level: int) -> list[str]:
    """Heading, signature and docstring of a thing, and of its public members if it is a class or module."""
    lines = [f"{'#' * level} {name}", ""]
    if callable(thing):
        lines += ["```python", _signature(thing, name), "```", ""]
    lines += _prose(inspect.getdoc(thing) or "")
    if isinstance(thing, type) and issubclass(thing, Document):
        lines += _fields(thing)
    for member, value in _members(thing):
        lines += _described(value, f"{name}.{member}", level=level + 1)
    return lines


def _members(thing: Any) -> Iterator[tuple[str, Any]]:
    """Public functions and properties that a class or module defines itself, with their docstrings."""
    if isinstance(thing, ModuleType):
        listed = getattr(thing, "__all__", None) or [name for name in vars(thing) if not name.startswith("_")]
        own = {name: getattr(thing, name) for name in listed if getattr(thing, name).__class__ is not ModuleType}
        yield from ((name, each) for name, each in own.items() if getattr(each, "__module__", "") == thing.__name__)
        return
    if not isinstance(thing, type):
        return
    own = {name: value for base in reversed(thing.__mro__) if _is_ours(base) for name, value in vars(base).items()}
    for name, value in own.items():
        found = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        is_member = inspect.isfunction(found) or isinstance(found, property) or hasattr(found, "func")
        if not name.startswith("_") and is_member and inspect.getdoc(found):
            yield name, found


def _is_ours(base: type) -> bool:
    return base.__module__.startswith("budgetnet.") and base is not Document


def _signature(thing: Any, name: str) -> str:
    """Return a signature; too long ones with a line for each parameter. Documents name their fields in a table."""
    if isinstance(thing, type) and issubclass(thing, Document):
        return f"{name}(**fields)"
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return f"{name}()"
    parameters = [_readable(each) for each in signature.parameters.values() if each.name not in ("self", "cls")]
    returned = inspect.Signature.empty if isinstance(thing, type) else _Plain.of(signature.return_annotation)
    text = f"{name}{signature.replace(parameters=parameters, return_annotation=returned)}"
    if len(text) <= _WIDTH:
        return text
    lines: list[str] = []
    marked = False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not marked:
            lines, marked = [*lines, "    *,"], True
        marked = marked or each.kind is each.VAR_POSITIONAL
        lines.append(f"    {each},")
    end = text[text.rindex(") -> ") :] if ") -> " in text else ")"
    return "\n".join([f"{name}(", *lines, end])


class _Plain(str):
    """Text that a signature shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    @classmethod
    def of(cls, value: Any) -> Any:
        """Return an annotation or default as it stands in the code; other than text as it is."""
        if isinstance(value, ForwardRef):
            return cls(value.__forward_arg__)
        return cls(value) if isinstance(value, str) else value


def _readable(parameter: inspect.Parameter) -> inspect.Parameter:
    default = parameter.default
    return parameter.replace(
        annotation=_Plain.of(parameter.annotation),
        default=_Plain(repr(str(default))) if isinstance(default, Path) else default,
    )


def _fields(model: type[Document]) -> list[str]:
    if model in _PAGES:
        return [f"Fields: [{model.__name__}]({_PAGES[model]}.md).", ""]
    lines = ["| field | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        value = field.get_default(call_default_factory=True)
        value = str(value) if isinstance(value, Path) else value
        default = "required" if field.is_required() else f"`{value!r}`"
        cells = [f"`{name}`", default, " ".join((field.description or "").split())]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return [*lines, ""]


def _prose(docstring: str) -> list[str]:
    """Return a docstring as Markdown: paragraphs, and arguments and errors as lists."""
    lines: list[str] = []
    section = ""
    for block in docstring.replace("``", "`").split("\n\n"):
        rows = block.splitlines()
        heading = _SECTION.match(rows[0]) if rows else None
        if heading:
            section = heading[1]
            lines += [f"**{section}**", "", *_entries(textwrap.dedent("\n".join(rows[1:])).splitlines())]
        elif block.startswith((" ", ">>>")):
            lines += ["```python", *textwrap.dedent(block).splitlines(), "```"]
        else:
            lines.append(" ".join(block.split()))
        lines.append("")
    return lines


def _entries(rows: list[str]) -> list[str]:
    """Return the entries of a section as a list; a section of plain text, such as of what is returned, as text."""
    entries: list[str] = []
    named = bool(rows) and _ENTRY.match(rows[0]) is not None
    for row in rows:
        found = _ENTRY.match(row)
        if found and named:
            entries.append(f"- `{found['name']}`: {found['text']}")
        elif entries:
            entries[-1] += f" {row.strip()}"
        else:
            entries.append(row.strip())
    return entries
