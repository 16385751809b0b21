"""Command-line options generated from the fields of configs, and errors that name these options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from budgetnet.common.config import Config, on_command_line, option_of, text_of
from budgetnet.common.errors import InputError


def takes_options_of(config: type[Config]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option, or an argument, for every field of a config.

    The decorated function receives the config as its first argument. The default and the help text of an option are the
    default and the description of its field; the config parses the values.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        fields = {name: _parameter(name, field) for name, field in config.model_fields.items()}

        @functools.wraps(function)
        def command(**values: Any) -> None:
            given = {name: values.pop(name) for name in fields}
            # An option without a value falls back to the default of its field.
            function(config(**{name: value for name, value in given.items() if value is not None}), **values)

        parameters = [*fields.values(), *(each.replace(kind=each.KEYWORD_ONLY) for each in own)]
        shown: Any = command
        shown.__signature__ = inspect.Signature(parameters)
        shown.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    how = on_command_line(field)
    default = ... if field.is_required() else field.get_default(call_default_factory=True)
    kind: Any
    if isinstance(default, bool):
        kind = bool
    elif isinstance(default, tuple):
        kind, default = list[str] | None, None
    elif isinstance(default, Path) or field.annotation is Path:
        kind = Path
    else:
        kind = str | None
        default = default if default is None or default is ... else text_of(field, default)
    metavar = "|".join(get_args(field.annotation)) if get_origin(field.annotation) is Literal else how.metavar
    shown: dict[str, Any] = {"help": field.description}
    if kind is not bool:
        shown["metavar"] = metavar
    if how.argument:
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, typer.Argument(**shown)]
        )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer.Option(option_of(name), **shown)],
    )


class Command(TyperCommand):
    """Command whose errors name options instead of fields: ``--max-params`` instead of ``max_params``."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            InputError: a value is invalid; its field is the name of the option, if there is one.
        """
        try:
            return super().invoke(ctx)
        except InputError as error:
            name, bracket, rest = error.field.partition("[")
            options = {each.name: each.opts[-1] for each in self.params if each.param_type_name == "option"}
            if name not in options:
                raise
            raise type(error)(f"{options[name]}{bracket}{rest}", error.value, error.rule) from None
