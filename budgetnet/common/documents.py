"""What every file format of budgetnet shares: closed, frozen, versioned documents with one-line errors."""

from __future__ import annotations

import difflib
import math
import numbers
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from budgetnet.common.errors import InputError, shown
from budgetnet.common.files import read_mapping, write_json, write_yaml

Named = TypeVar("Named")

MAX_CHANNELS = 65_536
"""The widest layer a specification may ask for: far beyond any budget, near enough to stop a slip of the pen."""


def whole_number(value: object) -> int:
    """Accepts what is a whole number (also numpy's, and 64.0) and nothing that merely converts to one."""
    # Registered numbers only: text and bytes convert to one but are none, and numpy's booleans equal 0 and 1.
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
    """Refuses yes and no as numbers; text such as ``1e-4`` passes, because YAML 1.1 reads it as text."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Number, str)):
        raise ValueError("must be a number")
    # Minus zero equals zero, so it must be written, and digested, like it.
    return 0.0 if not isinstance(value, str) and not value else value


Positive = Annotated[int, BeforeValidator(whole_number), Field(ge=1)]
Channels = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=MAX_CHANNELS)]
Real = Annotated[float, BeforeValidator(real_number), Field(allow_inf_nan=False)]


class Document(BaseModel):
    """A frozen, closed piece of a specification: unknown fields are errors, and errors are one line.

    Raises:
        InputError: on construction, when a field is unknown, missing or breaks its rule.
    """

    document_kind: ClassVar[str] = "document"
    """What a file that holds one is called in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise input_error(error) from None

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Self:
        """Builds the document from plain data, as read from a file.

        Raises:
            InputError: a field is unknown, missing or breaks its rule.
        """
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise input_error(error) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads the document from a YAML or JSON file.

        Raises:
            InputError: the file is missing or malformed, or what it holds breaks a rule.
        """
        mapping = read_mapping(Path(path), field=cls.document_kind)
        try:
            return cls.from_mapping(mapping)
        except InputError as error:
            raise InputError(f"{path}: {error.field}", error.value, error.rule) from None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        _name_bounds(handler.resolve_ref_schema(schema)["properties"])
        return schema

    def to_mapping(self) -> dict[str, Any]:
        """The document as plain data, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def save(self, path: str | Path) -> None:
        """Writes the document atomically: as JSON where the file's name ends so, else as YAML."""
        write = write_json if Path(path).suffix.lower() == ".json" else write_yaml
        write(Path(path), self.to_mapping())


_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _name_bounds(schema: Any) -> None:
    """Names bounds as JSON schemas do; pydantic leaves its own names on fields with validators of their own."""
    if isinstance(schema, list):
        for part in schema:
            _name_bounds(part)
    elif isinstance(schema, dict):
        for name in _BOUNDS.keys() & schema.keys():
            schema[_BOUNDS[name]] = schema.pop(name)
        for part in schema.values():
            _name_bounds(part)


def field_path(location: tuple[int | str, ...]) -> str:
    """A location inside a document as a person would write it: ``stages[2].channels``."""
    path = ""
    for part in location:
        if isinstance(part, str) and (len(part) > 80 or not part.isprintable()):
            # The name of an unknown field can be anything.
            part = shown(part)  # noqa: PLW2901
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
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "dict_type": "must be a mapping of fields",
}


def input_error(error: ValidationError) -> InputError:
    """The first of a validation's complaints as one line, and how many more there are."""
    # Where an entry of a list is wrong, pydantic also counts the list as too short by it.
    complaints = [
        complaint
        for complaint in error.errors(include_url=False)
        if complaint["type"] != "too_short" or len(complaint["input"]) < complaint["ctx"]["min_length"]
    ]
    first = complaints[0]
    context = first.get("ctx", {})
    inner = context.get("error")
    field = field_path(first["loc"])
    value = first["input"]
    # Only our own words are templates: pydantic's may quote a value, and that may hold braces.
    rule = _RULES[first["type"]].format(**context) if first["type"] in _RULES else first["msg"]
    if isinstance(inner, InputError):
        joint = "." if field and inner.field and not inner.field.startswith("[") else ""
        field, value, rule = f"{field}{joint}{inner.field}", inner.value, inner.rule
    elif inner is not None:
        rule = str(inner)
    if first["type"] == "missing":
        value = None
    if len(complaints) > 1:
        rule += f" (and {len(complaints) - 1} more)"
    return InputError(field or "document", value, rule)


# A comma parts thousands and nothing else: "1,5M" would mean 1.5M to some and must not become 15M.
def look_up(name: str, known: Mapping[str, Named], *, field: str, missing: str) -> Named:
    """What is known by a name.

    Args:
        name: the name.
        known: everything that has one.
        field: what to call the name in an error.
        missing: what to say when nothing has it, before the nearest name or all of them.

    Raises:
        InputError: nothing has that name.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise InputError(field, name, f"{missing}; {hint}")
    return known[name]


_COUNT = re.compile(
    r"(?P<number>[+-]?((\d{1,3}(,\d{3})+|\d+(_\d+)*)\.?\d*|\.\d+)([eE][+-]?\d{1,3})?)\s*(?P<unit>[kKmMgGbB]?)"
)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_MAX_COUNT = 10**18


def parse_count(value: object, *, field: str) -> int:
    """A positive whole number, as people write large ones: ``5000000``, ``5_000_000``, ``5e6``, ``5M``, ``1.5k``.

    Args:
        value: text or a number.
        field: what to call it in an error, for example ``--max-params``.

    Raises:
        InputError: it is not a number, not whole, below 1, or above 10^18.
    """
    rule = "must be a whole number of at least 1, such as 5000000, 5e6 or 5M"
    try:
        match = _COUNT.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    except ValueError:  # An integer of too many digits to be written.
        match = None
    if match is None:
        raise InputError(field, value, rule)
    written = Decimal(re.sub("[_,]", "", match["number"]))
    too_large = InputError(field, value, "must be at most 10^18")
    if written.adjusted() > 18:
        raise too_large
    # Exact: decimals would round to 28 digits when they are multiplied.
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
