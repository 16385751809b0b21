"""Configs: all options of a command as one frozen document, and the command line that one stands for."""

from __future__ import annotations

import inspect
import math
import shlex
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, model_validator
from pydantic.fields import FieldInfo

from budgetnet.common.byte_sizes import exact_bytes, parse_bytes
from budgetnet.common.documents import (
    Document,
    parse_count,
    parse_duration,
    parse_limit,
    path_as_text,
    real_number,
    whole_number,
)
from budgetnet.common.errors import InputError
from budgetnet.common.latencies import exact_latency, parse_latency
from budgetnet.common.passwords import without_password

Function = TypeVar("Function", bound=Callable[..., Any])


class OnCommandLine(NamedTuple):
    """How a field of a config is written on the command line; part of the field's annotation."""

    metavar: str
    """What stands for the value in help texts."""
    text: Callable[[Any], str] = str
    """Write a value as the command line takes it; a document by another function than `str` has a name there."""
    argument: bool = False
    """Whether the value is a positional argument rather than an option."""
    joined: bool = False
    """Whether several values are written as one, such as ``accuracy,macs``, rather than each with its own option."""


class Config(Document):
    """All options of one command; every field has a default, or is an argument of the command.

    A field's description is its help text on the command line. Values may be given as text, as on the command line:
    ``trials="20"``, ``max_params="5M"``, ``timeout="10m"``.

    Raises:
        InputError: on construction, when a field is unknown or breaks its rule.
    """

    command: ClassVar[str]
    """Name of the command below ``budgetnet``."""

    @property
    def values(self) -> dict[str, Any]:
        """The value of each field, by its name."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def default_of(self, name: str) -> Any:
        """Return the default of a field, which may depend on other fields."""
        return type(self).model_fields[name].get_default(call_default_factory=True)

    def replace(self, **changes: Any) -> Self:
        """Return a config with some fields changed, and the defaults of fields that were never given.

        Raises:
            InputError: a field is unknown or breaks its rule.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**given, **changes})


def command(config: Config) -> str:
    """Return the command line that a config stands for, with the fields that are not at their defaults.

    A document that has no name, such as a recipe made in Python, is written as a file's name in capitals.
    """
    words = ["budgetnet", *config.command.split()]
    fields = type(config).model_fields.items()

    # Positional arguments first, as in help texts, and where to train last.
    def place(pair: tuple[str, FieldInfo]) -> tuple[bool, bool]:
        return not on_command_line(pair[1]).argument, pair[0] in EngineOptions.model_fields

    for name, field in sorted(fields, key=place):
        value = getattr(config, name)
        if field.is_required() or value != config.default_of(name):
            words += _words(name, field, value)
    return shlex.join(words)


def has_unnamed_documents(config: Config) -> bool:
    """Return whether a config holds documents that the command line can only read from a file."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if any(_is_from_file(field, each) for each in (value if isinstance(value, tuple) else (value,))):
            return True
    return False


def _is_from_file(field: FieldInfo, value: Any) -> bool:
    """Return whether the command line can only read a value from a file."""
    return isinstance(value, (Document, dict)) and on_command_line(field).text is str


def on_command_line(field: FieldInfo) -> OnCommandLine:
    """Return how a field is written on the command line."""
    found = [each for each in field.metadata if isinstance(each, OnCommandLine)]
    return found[0] if found else OnCommandLine("TEXT")


def option_of(name: str) -> str:
    """Return the command-line option of a field: ``--max-params`` for ``max_params``."""
    # The unit is part of the value there: --max-latency 2ms.
    return f"--{name.removesuffix('_ms').replace('_', '-')}"


def text_of(field: FieldInfo, value: Any) -> str:
    """Return a value as the command line takes it."""
    how = on_command_line(field)
    return f"{how.metavar}.yaml" if _is_from_file(field, value) else how.text(value)


def _words(name: str, field: FieldInfo, value: Any) -> Iterator[str]:
    how = on_command_line(field)
    for each in value if isinstance(value, tuple) and not how.joined else (value,):
        if not how.argument:
            yield option_of(name)
        if each is not True:
            yield text_of(field, each)


def takes_fields_of(config: type[Config]) -> Callable[[Function], Function]:
    """Show a config's fields in the signature and the docstring of a function that takes them as keywords.

    Args:
        config: the config that the function builds from what its ``**`` parameter receives. A parameter that the
            function declares itself keeps its place.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        declared = {each.name for each in own}
        fields = [_keyword(name, field) for name, field in config.model_fields.items() if name not in declared]
        shown: Any = function
        shown.__signature__ = signature.replace(parameters=[*own, *fields])
        listed = "\n".join(f"    {name}: {field.description}" for name, field in config.model_fields.items())
        shown.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nFields:\n{listed}\n"
        return function

    return decorate


def _keyword(name: str, field: FieldInfo) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.annotation)


def _count(value: object) -> int:
    return parse_count(value, field="")


def _optional_count(value: object) -> int | None:
    return None if value is None else parse_count(value, field="")


def _count_or_zero(value: object) -> int:
    if str(value).strip() == "0":
        return 0
    try:
        return parse_count(value, field="")
    except ValueError:
        raise ValueError("must be a whole number of at least 0") from None


UNLIMITED = "unlimited"
"""What a limit is set to on the command line where there is none."""


def _limit(value: object) -> int | None:
    return None if value in (None, UNLIMITED) else parse_limit(value, field="")


def _size(value: object) -> int | None:
    return None if value in (None, UNLIMITED) else parse_bytes(value, field="")


def _size_text(value: int | None) -> str:
    return UNLIMITED if value is None else exact_bytes(value)


def _latency(value: object) -> float | None:
    return None if value in (None, UNLIMITED) else parse_latency(value, field="")


def _latency_text(value: float | None) -> str:
    return UNLIMITED if value is None else exact_latency(value)


def _limit_text(value: int | None) -> str:
    """Write a limit, round numbers in short: ``5M``."""
    if value is None:
        return UNLIMITED
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def _seed(value: object) -> int:
    rule = f"must be a whole number from 0 to {2**32 - 1:,}"
    try:
        seed = int(value.strip()) if isinstance(value, str) else whole_number(value)
    except ValueError:
        raise ValueError(rule) from None
    if not 0 <= seed < 2**32:
        raise ValueError(rule)
    return seed


def _duration(value: object) -> float | None:
    return None if value is None else parse_duration(value, field="")


def _duration_text(seconds: float) -> str:
    """Write a time without an exponent, which none is read with."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _petaflops(value: object) -> float | None:
    if value is None:
        return None
    rule = "must be a number of PFLOP (1e15 operations) above 0, such as 0.5"
    try:
        number = float(real_number(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(rule) from None
    if not 0 < number < math.inf:
        raise ValueError(rule)
    return number


def petaflops_text(number: float) -> str:
    """Write a number of PFLOP as it is read: ``5``, ``0.25``, ``1e-07``."""
    return str(number).removesuffix(".0")


def _threads(value: object) -> int | str | None:
    return None if value is None else _count_or_auto(value)


def _count_or_auto(value: object) -> int | str:
    if value == "auto":
        return "auto"
    try:
        return parse_count(value, field="")
    except ValueError:
        raise ValueError("must be a whole number of at least 1, or auto") from None


def several(value: object) -> tuple[Any, ...]:
    """Accept one value where several may stand."""
    return () if value is None else tuple(value) if isinstance(value, (list, tuple)) else (value,)


def tracker_text(tracker: str) -> str:
    """Write a tracker without the passwords in its place."""
    kind, colon, place = tracker.partition(":")
    return f"{kind}{colon}{without_password(place)}" if place else tracker


def require_tracker(text: str, *, field: str = "") -> None:
    """Check the form of a tracker's name, without loading its package.

    Raises:
        InputError: unknown tracker, or a colon without a location.
    """
    name, colon, location = text.partition(":")
    if name not in ("tensorboard", "mlflow") or (colon and not location):
        raise InputError(field, tracker_text(text), "must be tensorboard, tensorboard:FOLDER, mlflow or mlflow:URI")


def _trackers(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        require_tracker(text)
    return texts


Count = Annotated[int, BeforeValidator(_count, json_schema_input_type=int | str), OnCommandLine("N")]
OptionalCount = Annotated[int | None, BeforeValidator(_optional_count), OnCommandLine("N")]
CountOrZero = Annotated[int, BeforeValidator(_count_or_zero), OnCommandLine("N")]
OptionalLimit = Annotated[int | None, BeforeValidator(_limit), OnCommandLine("N", _limit_text)]
OptionalLatency = Annotated[float | None, BeforeValidator(_latency), OnCommandLine("TIME", _latency_text)]
OptionalFile = Annotated[str | None, BeforeValidator(path_as_text), OnCommandLine("FILE")]
OptionalSize = Annotated[int | None, BeforeValidator(_size), OnCommandLine("SIZE", _size_text)]
Seed = Annotated[int, BeforeValidator(_seed), OnCommandLine("N")]
Duration = Annotated[float | None, BeforeValidator(_duration), OnCommandLine("TIME", _duration_text)]
Petaflops = Annotated[float | None, BeforeValidator(_petaflops), OnCommandLine("PFLOP", petaflops_text)]
Threads = Annotated[int | Literal["auto"] | None, BeforeValidator(_threads), OnCommandLine("N|auto")]
CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto), OnCommandLine("N|auto")]


def _not_empty(value: str | None) -> str | None:
    if value == "":
        raise ValueError("must not be empty")
    return value


Name = Annotated[str | None, AfterValidator(_not_empty)]
Data = Annotated[str, BeforeValidator(path_as_text), OnCommandLine("DATA")]
Url = Annotated[
    str | None,
    AfterValidator(_not_empty),
    PlainSerializer(lambda url: None if url is None else without_password(url)),
    OnCommandLine("URL", without_password),
]
Trackers = Annotated[
    tuple[str, ...],
    BeforeValidator(several),
    AfterValidator(_trackers),
    PlainSerializer(lambda trackers: [tracker_text(each) for each in trackers]),
    OnCommandLine("TRACKER", tracker_text),
]
OptionalData = Annotated[str | None, BeforeValidator(path_as_text), AfterValidator(_not_empty), OnCommandLine("DATA")]
DeviceName = Literal["auto", "cuda", "mps", "cpu"]
EngineName = Literal["local", "ray"]


class EngineOptions(Config):
    """Options of commands that train several runs: where, and with how many workers and threads."""

    engine: EngineName = "local"
    """Where runs are trained. local: on this machine. ray: on a Ray cluster."""
    workers: OptionalCount = None
    """Number of worker processes. Default: one on a CPU, per_gpu on each GPU, or all that a cluster has room for."""
    per_gpu: CountOrAuto = 1
    """Number of worker processes that share a GPU; auto: as many as its memory has room for."""
    store: Url = None
    """URL at which a cluster's workers keep runs, such as s3://bucket/runs. Default: the folder of runs."""

    threads: Threads = None
    """Threads of torch on a CPU; auto takes one or all, by a few measured steps. Default: one per free core."""

    @model_validator(mode="after")
    def _steps_are_measured_here(self) -> Self:
        if self.threads == "auto" and self.engine == "ray":
            rule = "measures steps on this machine, not on those of a cluster: give a number of threads with engine ray"
            raise InputError("threads", self.threads, rule)
        return self

    @model_validator(mode="after")
    def _store_is_for_clusters(self) -> Self:
        if self.store is not None and self.engine != "ray":
            raise InputError(
                "store", without_password(self.store), "is for the workers of a cluster: engine must be ray"
            )
        return self
