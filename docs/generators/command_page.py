"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from budgetnet.cli.main import app

_KINDS = {"<str>": "TEXT", "<path>": "PATH", "<int range>": "N", "<int>": "N", "<list[Path]>": "PATH"}
"""What stands for a value where an option names nothing better."""

_BAR = r"\|"
"""A bar that does not end a cell."""


def command_line_page() -> str:
    """Every verb with its arguments and options, as a page of Markdown."""
    # Typer carries its own copy of click in some versions and not in others, so what it gives has no type of ours.
    command: Any = typer.main.get_command(app)
    context = command.make_context("budgetnet", [], resilient_parsing=True)
    lines = ["# Command line", "", command.help, "", command.epilog, "", *_parameters(command, context)]
    for name, verb in _verbs(command, context):
        lines += _section(verb, path=f"budgetnet {name}", parent=context, level=2)
    return "\n".join(lines) + "\n"


def _verbs(group: Any, context: Any) -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(context):
        yield name, group.get_command(context, name)


def _section(command: Any, *, path: str, parent: Any, level: int) -> list[str]:
    name = path.rpartition(" ")[2]
    context = command.context_class(command, parent=parent, info_name=name)
    usage = " ".join([path, *command.collect_usage_pieces(context)]).replace("{", "").replace("}", "")
    lines = [f"{'#' * level} {path.removeprefix('budgetnet ')}", "", _prose(command.help), ""]
    if not hasattr(command, "list_commands"):
        return [*lines, "```text", usage, "```", "", *_parameters(command, context)]
    for child, verb in _verbs(command, context):
        lines += _section(verb, path=f"{path} {child}", parent=context, level=level + 1)
    return lines


def _parameters(command: Any, context: Any) -> list[str]:
    """Arguments first, then options, as a table."""
    # The help option says the same for every verb.
    listed = [each for each in command.get_params(context) if "--help" not in each.opts and not each.hidden]
    ordered = sorted(listed, key=lambda parameter: parameter.param_type_name != "argument")
    rows = [_row(parameter, context) for parameter in ordered if "-completion" not in "".join(parameter.opts)]
    return ["| argument or option | left out | meaning |", "|---|---|---|", *rows, ""] if rows else []


def _row(parameter: Any, context: Any) -> str:
    name, _ = parameter.get_help_record(context)
    for kind, word in _KINDS.items():
        # An argument is named by itself, an option by what follows it.
        name = name.replace(f" {kind}", "" if parameter.param_type_name == "argument" else f" {word}")
    if parameter.required:
        default = "required"
    elif parameter.default in (None, "", ()) or (parameter.default is False and not parameter.secondary_opts):
        default = ""
    else:
        flag = parameter.opts[0] if parameter.default is True else parameter.default
        default = f"`{flag}`"
    return f"| `{name.replace('|', _BAR)}` | {default} | {_prose(parameter.help).replace('|', _BAR)} |"


def _prose(text: str | None) -> str:
    return " ".join((text or "").split())
