"""Base class and field types of budgetnet's file formats: frozen pydantic models with one-line errors."""

from __future__ import annotations

import difflib
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sized
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails

from budgetnet.common.errors import InputError, short_repr
from budgetnet.common.files import read_mapping, write_json, write_yaml

Value = TypeVar("Value")

MAX_CHANNELS = 65_536
"""Maximum width of a layer: far above any practical budget, low enough to catch typos."""


def whole_number(value: object) -> int:
    """Convert a whole number of any numeric type (numpy's too, and 64.0) to `int`.

    Raises:
        ValueError: the value is not a whole number; booleans, text and bytes are rejected.
    """
    # numpy's booleans and text would pass `int`, but are not registered as numbers.
    if isinstance(value, bool) or not isinstance(value, numbers.Number):
        raise ValueError("must be a whole number")
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        raise ValueError("must be a whole number") from None
    if number != value:
        raise ValueError("must be a whole number")
    return int(number)


def real_number(value: object) -> object:
    """Reject booleans as numbers, and turn -0.0 into 0.0; text such as ``1e-4`` passes, as YAML 1.1 parses it as text.

    Raises:
        ValueError: the value is neither a number nor text.
    """
    if isinstance(value, bool) or not isinstance(value, (numbers.Number, str)):
        raise ValueError("must be a number")
    # Equal values must have equal digests.
    return 0.0 if not isinstance(value, str) and not value else value


def path_as_text(value: object) -> object:
    """Accept a path where a name or a file may stand."""
    return str(value) if isinstance(value, Path) else value


Positive = Annotated[int, BeforeValidator(whole_number), Field(ge=1)]
Channels = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=MAX_CHANNELS)]
Real = Annotated[float, BeforeValidator(real_number), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
"""True or false; no numbers and no text."""


class Document(BaseModel):
    """Base class of frozen documents that reject unknown fields and report errors in one line.

    Raises:
        InputError: a field is unknown, missing or invalid.
    """

    document_kind: ClassVar[str] = "document"
    """Name of the document's file in error messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise input_error(error, type(self)) from None

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Self:
        """Create the document from plain data, as read from a file.

        Raises:
            InputError: a field is unknown, missing or invalid.
        """
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise input_error(error, cls) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the document from a YAML or JSON file.

        Raises:
            InputError: the file is missing or malformed, or a field is unknown, missing or invalid.
        """
        mapping = read_mapping(Path(path), field=cls.document_kind)
        try:
            return cls.from_mapping(mapping)
        except InputError as error:
            raise InputError(f"{path}: {error.field}", error.value, error.rule) from None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        _rename_bounds(handler.resolve_ref_schema(schema)["properties"])
        return schema

    def to_mapping(self) -> dict[str, Any]:
        """Return the document as plain data that YAML and JSON can store."""
        return self.model_dump(mode="json")

    def save(self, path: str | Path) -> None:
        """Write the document atomically: as JSON if the suffix is ``.json``, otherwise as YAML."""
        write = write_json if Path(path).suffix.lower() == ".json" else write_yaml
        write(Path(path), self.to_mapping())


_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _rename_bounds(schema: Any) -> None:
    """Rename bounds to JSON schema keywords in place; pydantic keeps its own names on fields with custom validators."""
    if isinstance(schema, list):
        for part in schema:
            _rename_bounds(part)
    elif isinstance(schema, dict):
        for name in _BOUNDS.keys() & schema.keys():
            schema[_BOUNDS[name]] = schema.pop(name)
        for part in schema.values():
            _rename_bounds(part)


def field_path(location: tuple[int | str, ...]) -> str:
    """Format a pydantic error location as a path: ``stages[2].channels``."""
    path = ""
    for part in location:
        if isinstance(part, str) and (len(part) > 80 or not part.isprintable()):
            # Names of unknown fields can be any text.
            part = short_repr(part)  # noqa: PLW2901
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


_RULES = {
    "extra_forbidden": "unknown field",
    "missing": "missing field",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
    "int_parsing_size": "must be a number of fewer digits",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "string_pattern_mismatch": "must be of letters, digits and . _ + - only",
    "string_too_long": "must be at most {max_length} characters",
    "path_type": "must be a path",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "dict_type": "must be a mapping of fields",
}


def _length(problem: ErrorDetails) -> int:
    """Return the length of a list that is too short, with its invalid entries; of an iterator only the valid count."""
    given, context = problem["input"], problem["ctx"]
    return len(given) if isinstance(given, Sized) else int(context["actual_length"])


def document_type(annotation: Any) -> type[Document] | None:
    """Return the document type in an annotation, also in a list or a union; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return annotation
    return next((found for part in get_args(annotation) if (found := document_type(part))), None)


def _nearest_field(document: type[Document] | None, location: tuple[int | str, ...]) -> str:
    """Return a question for the known field most like an unknown one; empty if none is."""
    *parents, unknown = location
    for part in parents:
        if document is not None and isinstance(part, str) and part in document.model_fields:
            document = document_type(document.model_fields[part].annotation)
    return did_you_mean(str(unknown), document.model_fields) if document is not None else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question for the known name most like an unknown one, as the end of an error; empty if none is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def input_error(error: ValidationError, document: type[Document]) -> InputError:
    """Convert a validation error to an `InputError` for its first problem, with the number of further ones.

    Args:
        error: what pydantic raised.
        document: the type of document that was validated.
    """
    # pydantic also reports a list as too short if one of its entries is invalid.
    problems = [
        problem
        for problem in error.errors(include_url=False)
        if problem["type"] != "too_short" or _length(problem) < problem["ctx"]["min_length"]
    ]
    first = problems[0]
    if first["type"] == "missing":
        # A misspelled field is the reason why another one is missing.
        siblings = (each for each in problems if each["loc"][:-1] == first["loc"][:-1])
        first = next((each for each in siblings if each["type"] == "extra_forbidden"), first)
    context = first.get("ctx", {})
    inner = context.get("error")
    field = field_path(first["loc"])
    value = first["input"]
    # pydantic's messages are not templates: they may quote a value that contains braces.
    rule = _RULES[first["type"]].format(**context) if first["type"] in _RULES else first["msg"]
    if first["type"] == "extra_forbidden":
        rule += _nearest_field(document, first["loc"])
    if isinstance(inner, InputError):
        separator = "." if field and inner.field and not inner.field.startswith("[") else ""
        field, value, rule = f"{field}{separator}{inner.field}", inner.value, inner.rule
    elif inner is not None:
        rule = str(inner)
    if first["type"] == "missing" and isinstance(first["loc"][-1], int):
        # Every missing entry is a problem, so the last one tells how many are needed.
        own = [each["loc"] for each in problems if each["type"] == "missing" and each["loc"][:-1] == first["loc"][:-1]]
        field, rule = field_path(first["loc"][:-1]), f"must have {int(own[-1][-1]) + 1} entries"
        problems = [each for each in problems if each["loc"] not in own[1:]]
    elif first["type"] == "missing":
        value = None
    if len(problems) > 1 and not rule.endswith(" more)"):
        rule += f" (and {len(problems) - 1} more)"
    return InputError(field or "document", value, rule)


def look_up(name: str, known: Mapping[str, Value], *, field: str, missing: str) -> Value:
    """Return the entry with a given name.

    Args:
        name: the name.
        known: all entries by name.
        field: name of the field in error messages.
        missing: start of the error message; the closest name, or all of them, are appended.

    Raises:
        InputError: no entry has this name.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"available: {', '.join(known)}"
        raise InputError(field, name, f"{missing}; {hint}")
    return known[name]


# Commas only group thousands: "1,5M" means 1.5M in some countries and must not be read as 15M.
_COUNT = re.compile(
    r"(?P<number>[+-]?((\d{1,3}(,\d{3})+|\d+(_\d+)*)\.?\d*|\.\d+)([eE][+-]?\d{1,3})?)\s*(?P<unit>[kKmMgGbB]?)"
)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_MAX_COUNT = 10**18
_AT_LEAST_ONE = "must be a whole number of at least 1"


def parse_count(value: object, *, field: str) -> int:
    """Parse a positive whole number: ``5000000``, ``5_000_000``, ``5e6``, ``5M``, ``1.5k``.

    Args:
        value: text or a number.
        field: name of the field in error messages, for example ``--max-params``.

    Raises:
        InputError: the value is not a whole number from 1 to 10^18.
    """
    return _parse_count(value, field=field, rule=_AT_LEAST_ONE)


def parse_limit(value: object, *, field: str) -> int:
    """Parse a limit, as `parse_count` does; errors give examples of large numbers.

    Raises:
        InputError: the value is not a whole number from 1 to 10^18.
    """
    return _parse_count(value, field=field, rule=f"{_AT_LEAST_ONE}, such as 5000000, 5e6 or 5M")


def _parse_count(value: object, *, field: str, rule: str) -> int:
    try:
        match = _COUNT.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    except ValueError:  # Python refuses to print integers of more than 4,300 digits.
        match = None
    if match is None:
        raise InputError(field, value, rule)
    written = Decimal(re.sub("[_,]", "", match["number"]))
    too_large = InputError(field, value, "must be at most 10^18")
    if written.adjusted() > 18:
        raise too_large
    # Decimal products are rounded to 28 digits; fractions are exact.
    number = Fraction(written) * _UNITS[match["unit"].lower()]
    if number < 1 or number.denominator != 1:
        raise InputError(field, value, rule)
    if number > _MAX_COUNT:
        raise too_large
    return int(number)


_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>s|m|h|d)?", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(value: object, *, field: str) -> float:
    """Return a time in seconds, as people write it: ``90``, ``90s``, ``30m``, ``1.5h``.

    Args:
        value: text, or a number of seconds.
        field: what to call it in an error.

    Raises:
        InputError: it is not a time, or not above 0.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        seconds = float(value)
    else:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        seconds = float(match["number"]) * _SECONDS[(match["unit"] or "s").lower()] if match else 0.0
    if not 0 < seconds < math.inf:
        raise InputError(field, value, "must be a time above 0 such as 90s, 30m or 1.5h")
    return seconds
