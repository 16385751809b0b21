"""The references of files that people write, from the models that read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from budgetnet.common.documents import Document
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.study.space import SearchSpace


class _Kind(NamedTuple):
    """A kind of file."""

    model: type[Document]
    title: str
    example: str
    """Heading of its annotated example among the files and formats."""


DOCUMENTS: dict[str, _Kind] = {
    "spec": _Kind(ModelSpec, "A network: `spec.yaml`", "a-network-specyaml"),
    "recipe": _Kind(Recipe, "How it is trained: `recipe.yaml`", "how-it-is-trained-recipeyaml"),
    "space": _Kind(SearchSpace, "What a search may propose: `space.yaml`", "what-a-search-may-propose-spaceyaml"),
    "ablation": _Kind(AblationStudy, "What an ablation varies: `study.yaml`", "what-is-varied-studyyaml"),
}
"""Files by the names that `budgetnet schema` knows them by."""

_BAR = r"\|"
"""A bar that does not end a cell."""

_PAGES = {kind.model.__name__: name for name, kind in DOCUMENTS.items()}


def document_page(name: str) -> str:
    """Every field of a kind of file, as a page of Markdown: what it may hold, its default, its rule and its meaning."""
    kind = DOCUMENTS[name]
    schema = kind.model.model_json_schema()
    parts = schema.get("$defs", {})
    lines = [f"# {kind.title}", "", *_said_of(schema), *_table(schema, parts)]
    lines += [
        f"YAML or JSON. `budgetnet schema {name}` prints the same as a JSON schema; an example with comments stands in"
        f" [files and formats](../files.md#{kind.example}).",
        "",
    ]
    for part in _parts_of(schema, parts):
        lines += [f"## {part}", "", *_said_of(parts[part]), *_table(parts[part], parts)]
    return "\n".join(lines)


def _parts_of(schema: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """Documents within a document, in the order in which they are named; those with a page of their own stay there."""
    found: list[str] = []
    for name in _referred(schema["properties"]):
        if name in parts and name not in _PAGES and name not in found:
            found += [name, *[inner for inner in _parts_of(parts[name], parts) if inner not in found]]
    return found


def _referred(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield _last(value["$ref"])
        for part in value.values():
            yield from _referred(part)
    elif isinstance(value, list):
        for part in value:
            yield from _referred(part)


def _said_of(schema: dict[str, Any]) -> list[str]:
    """A docstring as Markdown: what it says, then what is refused."""
    said, _, raised = schema.get("description", "").partition("Raises:")
    paragraphs = [" ".join(paragraph.split()) for paragraph in said.split("\n\n")]
    lines = [line for paragraph in paragraphs if paragraph for line in (paragraph, "")]
    refused = " ".join(raised.partition("InputError:")[2].split())
    return [*lines, f"Refused, with field, value and rule: {refused}", ""] if refused else lines


def _table(schema: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    lines = ["| field | type and rule | if left out | meaning |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        cells = [f"`{name}`", _type(field), _default(name, schema, parts), " ".join(field["description"].split())]
        lines.append(f"| {' | '.join(cell.replace('|', _BAR) for cell in cells)} |")
    return [*lines, ""]


def _default(name: str, schema: dict[str, Any], parts: dict[str, Any]) -> str:
    field = schema["properties"][name]
    if name in schema.get("required", []):
        return "required"
    # What pydantic leaves out of a schema is made anew for each document: mappings, which begin empty.
    default = field.get("default", {})
    for part in _referred(field):
        own = {key: inner.get("default") for key, inner in parts[part]["properties"].items()}
        # A document may leave out fields at their defaults.
        if default and {**own, **default} == own:
            return f"{_link(part)} as it stands"
    return f"`{default or json.dumps(default)}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


_NAMES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def _type(field: dict[str, Any]) -> str:
    """What a field may hold, and its rule, in words."""
    if "$ref" in field:
        return _link(_last(field["$ref"]))
    if "anyOf" in field:
        kinds = list(dict.fromkeys(_type(part) for part in field["anyOf"]))
        # Whole numbers are numbers.
        return ", or ".join(kind for kind in kinds if kind != "whole number" or "number" not in kinds)
    if "enum" in field or "const" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    return _plain(field)


def _plain(field: dict[str, Any]) -> str:
    match field.get("type"):
        case "array":
            return _list(field)
        case "object":
            values = field.get("additionalProperties")
            return f"mapping to {_type(values)}" if isinstance(values, dict) and values else "mapping"
        case "string":
            rules = [f"at most {field['maxLength']} characters"] if "maxLength" in field else []
            rules += [f"of the form `{field['pattern']}`"] if "pattern" in field else []
            return ", ".join(["text", *rules])
        case kind:
            odd = "odd " if field.get("not") == {"multipleOf": 2} else ""
            return f"{odd}{_NAMES.get(str(kind), 'anything')}{_bounds(field)}"


def _list(field: dict[str, Any]) -> str:
    if "prefixItems" in field:
        entries = [_type(entry) for entry in field["prefixItems"]]
        if len(set(entries)) == 1:
            return f"list of {len(entries)}, each {entries[0]}"
        return "list of: " + "; ".join(entries)
    least, most = field.get("minItems"), field.get("maxItems")
    size = f" of {least} to {most:,}" if most else " of at least 1" if least else ""
    return f"list{size}, each {_type(field.get('items', {}))}"


def _bounds(field: dict[str, Any]) -> str:
    if "minimum" in field and "maximum" in field:
        return f" from {field['minimum']:,} to {field['maximum']:,}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    rules = [f"{word} {field[key]:,}" for key, word in words.items() if key in field]
    return f" {' and '.join(rules)}" if rules else ""


def _link(kind: str) -> str:
    return f"[{kind}]({_PAGES[kind]}.md)" if kind in _PAGES else f"[{kind}](#{kind.lower()})"


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]
