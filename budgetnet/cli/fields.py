"""Command-line options generated from the fields of configs, and errors that name these options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperGroup

from budgetnet.cli.completion import completing
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
        def command(context: typer.Context, **values: Any) -> None:
            every = {name: values.pop(name) for name in fields}
            # What is not given is left to the config: the default of a field may depend on another.
            given = {name for name in every if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"}
            function(config(**{name: every[name] for name in fields if name in given}), **values)

        asked = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [asked, *fields.values(), *(each.replace(kind=each.KEYWORD_ONLY) for each in own)]
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
    elif isinstance(default, tuple) and not how.joined:
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
    shown["autocompletion"] = completing(metavar)
    if how.argument:
        return inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is ... else default,
            annotation=Annotated[kind, typer.Argument(**shown)],
        )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer.Option(option_of(name), **shown)],
    )


_GROUPS = {
    "Budget": "max_params max_macs max_activations max_weights weight_precision max_peak_memory max_latency_ms "
    "device_file",
    "Data": "data declare train_size validation_size on other_data input_shape input_size classes",
    "Candidates": "objectives trials timeout max_train_flops space sizing sampler pruner enqueue",
    "Winner of a search": "of base",
    "Training": "recipe epochs seed seeds members spec change compiled replay threads",
    "Finalists": "finalists final_seeds final_recipe final_epochs",
    "Where": "study storage out device engine workers per_gpu store track",
    "Output": "quiet verbose as_json save sort bins top help",
}
"""Parameters of commands, in the groups that help texts show."""
_GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names.split()}
_MANY = 8
"""Number of options from which they are shown in groups."""

_EXAMPLES = {
    "search": "budgetnet search --max-params 5e6 --data cifar10 --trials 50 --finalists 3",
    "train": "budgetnet train resnet20 --data cifar10 --recipe modern --epochs 30",
    "check": "budgetnet check resnet20 --max-params 200k",
    "evaluate": "budgetnet evaluate best --on test",
    "predict": "budgetnet predict best photo.png",
    "export": "budgetnet export best --format onnx",
    "quantize": "budgetnet quantize best -o network.onnx",
    "leaderboard": "budgetnet leaderboard",
    "trials": "budgetnet trials --sort accuracy",
    "report": "budgetnet report -o report.html",
    "ablate": "budgetnet ablate studies/kernel-size --seeds 5, or of a search: budgetnet ablate --of best",
    "ensemble": "budgetnet ensemble runs/first runs/second --on test",
    "device measure": "budgetnet device measure --space resnet -o device.yaml",
    "space": "budgetnet space resnet --max-params 5M",
    "reproduce reference": "budgetnet reproduce reference --data cifar10",
}
"""An example of a command, by its words."""


class Command(TyperCommand):
    """Command with grouped options and an example, whose errors name options instead of fields.

    An error says ``--max-params`` instead of ``max_params``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        each: Any  # Typer's own class of options, which has attributes that click's has not.
        for each in self.params:
            if each.param_type_name != "option":
                # The name of the argument says what it is; Typer would add the type in Python's words.
                each.display_type_rich = lambda ctx: None  # noqa: ARG005
                continue
            if len(self.params) >= _MANY:
                each.rich_help_panel = each.rich_help_panel or _GROUP_OF.get(str(each.name))
            _show_plainly(each)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text, with an example below it."""
        example = _EXAMPLES.get(ctx.command_path.partition(" ")[2])
        self.epilog = f"Example: {example}" if example else None
        super().format_help(ctx, formatter)

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option ``--help``, shown like the others."""
        option: Any = super().get_help_option(ctx)
        _show_plainly(option)
        option.rich_help_panel = "Output" if len(self.params) >= _MANY else None
        return option

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            InputError: a value is invalid; its field is the name of the option, if there is one.
        """
        try:
            return super().invoke(ctx)
        except InputError as error:
            name, bracket, rest = error.field.partition("[")
            options = {each.name: max(each.opts, key=len) for each in self.params if each.param_type_name == "option"}
            if name not in options:
                raise
            raise type(error)(f"{options[name]}{bracket}{rest}", error.value, error.rule) from None


class Group(TyperGroup):
    """Command with subcommands, whose options are shown like those of `Command`."""

    def get_params(self, ctx: Any) -> Any:
        """Return all options, those that Typer adds too."""
        options = super().get_params(ctx)
        for each in options:
            _show_plainly(each)
        return options


def _show_plainly(option: Any) -> None:
    """Show an option without the type and the range of its value in Python's words."""
    if option.metavar is None:
        option.metavar = _metavar(option)
    option._get_number_range_help_str = lambda: None


def _metavar(option: Any) -> str:
    """Return what stands for an option's value in its help text; nothing for a flag."""
    if option.is_flag:
        return ""
    if isinstance(option.default, Path):
        return "PATH"
    return "N" if isinstance(option.default, int) else str(option.name).upper()
