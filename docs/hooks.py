"""What the documentation is given while it is built: references made from the code itself, and notebooks as pages.

Nothing that is made here is kept, so that no page can say other than the code does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter
from typer.cli import get_docs_for_click

from budgetnet.ablation import AblationStudy
from budgetnet.cli.main import app
from budgetnet.fields import Document
from budgetnet.recipe import Recipe
from budgetnet.space import SearchSpace
from budgetnet.spec import ModelSpec

DOCUMENTS: dict[str, tuple[type[Document], str]] = {
    "spec": (ModelSpec, "A network: `spec.yaml`"),
    "recipe": (Recipe, "How it is trained: `recipe.yaml`"),
    "space": (SearchSpace, "What a search may propose: `space.yaml`"),
    "ablation": (AblationStudy, "What an ablation varies: `study.yaml`"),
}
"""Files by the name that `budgetnet schema` knows them by, and the titles of their pages."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the code, and the notebooks."""
    for name, (model, title) in DOCUMENTS.items():
        page = document_page(model, name=name, title=title)
        files.append(File.generated(config, f"reference/{name}.md", content=page))
    files.append(File.generated(config, "reference/command-line.md", content=command_line_page()))
    for path in sorted((Path(config.docs_dir) / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook_page(path)))
    return files


_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:studies|tests|budgetnet)[^)]*\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - as called
    """Keeps the words of links to what lies outside the documentation; they lead somewhere in the repository alone."""
    return _OUTSIDE.sub(r"\1", markdown)


def notebook_page(path: Path) -> str:
    """A notebook as a page, with a link to the notebook itself."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    body, _ = MarkdownExporter().from_notebook_node(notebook)
    title, _, rest = body.strip().partition("\n")
    return f"{title}\n\n[Download this notebook]({path.name}) and run it; the tests do so as well.\n{rest}"


def command_line_page() -> str:
    """Every verb with its arguments and options."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("budgetnet", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="budgetnet")
    # The page's title stands alone on its floor; what typer adds to every command's shell is not ours to explain.
    lines = [line for line in text.splitlines() if "-completion`" not in line]
    return "\n".join(["# Command line", "", *lines[1:], ""])


def document_page(model: type[Document], *, name: str, title: str) -> str:
    """Every field of a kind of file: what it may hold, what it is if left out, and what it means."""
    schema = model.model_json_schema()
    parts = [f"# {title}", "", _words(schema.get("description", "")), ""]
    parts += [f"YAML or JSON; `budgetnet schema {name}` prints the same as a JSON schema. Unknown fields are errors.", ""]
    parts += _table(schema)
    for kind, part in schema.get("$defs", {}).items():
        parts += ["", f"## {kind}", "", _words(part.get("description", "")), ""]
        parts += _table(part) if "properties" in part else [f"One of {_type(part)}."]
    return "\n".join([*parts, ""])


def _table(schema: dict[str, Any]) -> list[str]:
    required = schema.get("required", [])
    lines = ["| field | holds | if left out | means |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        default = "required" if name in required else _default(field)
        lines.append(f"| `{name}` | {_cell(_type(field))} | {_cell(default)} | {_cell(_words(field.get('description', '')))} |")
    return lines


def _default(field: dict[str, Any]) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


_NAMES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
    ("minItems", "at least"),
    ("maxItems", "at most"),
    ("minLength", "characters: at least"),
    ("maxLength", "characters: at most"),
)


def _type(field: dict[str, Any]) -> str:
    """What a field may hold, in words."""
    if "$ref" in field:
        kind = field["$ref"].rsplit("/", 1)[-1]
        return f"[{kind}](#{kind.lower()})"
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in field:
            return " or ".join(dict.fromkeys(_type(part) for part in field[choice]))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    words = _NAMES.get(field.get("type", ""), field.get("type", "anything"))
    if field.get("type") == "array":
        each = field.get("prefixItems")
        inner = ", ".join(_type(part) for part in each) if each else _type(field.get("items", {}))
        words = f"list of {inner}"
    elif field.get("type") == "object":
        values = field.get("additionalProperties")
        words = f"mapping to {_type(values)}" if isinstance(values, dict) and values else "mapping"
    bounds = [f"{word} {field[key]:g}" for key, word in _BOUNDS if key in field]
    return f"{words}, {', '.join(bounds)}" if bounds else words


def _words(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    """A text that stays within its cell."""
    return text.replace("|", "\\|")
