"""What every file format of budgetnet shares: closed, frozen, versioned documents with one-line errors."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from budgetnet.errors import InputError
from budgetnet.files import read_mapping, write_yaml

MAX_CHANNELS = 65_536
"""The widest layer a specification may ask for: far beyond any budget, near enough to stop a slip of the pen."""


def whole_number(value: object) -> int:
    """Accepts what is a whole number (also numpy's, and 64.0) and nothing that merely converts to one."""
    if isinstance(value, bool | str) or value is None:
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
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


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

    def __init__(self, **data: Any) -> None:
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

    def to_mapping(self) -> dict[str, Any]:
        """The document as plain data, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def save(self, path: str | Path) -> None:
        """Writes the document as YAML, atomically."""
        write_yaml(Path(path), self.to_mapping())


def field_path(location: tuple[int | str, ...]) -> str:
    """A location inside a document as a person would write it: ``stages[2].channels``."""
    path = ""
    for part in location:
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
    complaints = error.errors(include_url=False)
    first = complaints[0]
    context = first.get("ctx", {})
    inner = context.get("error")
    field = field_path(first["loc"])
    value, rule = first["input"], _RULES.get(first["type"], first["msg"]).format(**context)
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


_COUNT = re.compile(r"(?P<number>[+-]?(\d[\d_,]*\.?\d*|\.\d+)([eE][+-]?\d{1,3})?)\s*(?P<unit>[kKmMgGbB]?)")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


def parse_count(value: object, *, field: str) -> int:
    """A positive whole number, as people write large ones: ``5000000``, ``5_000_000``, ``5e6``, ``5M``, ``1.5k``.

    Args:
        value: text or a number.
        field: what to call it in an error, for example ``--max-params``.

    Raises:
        InputError: it is not a number, not whole, or below 1.
    """
    rule = "must be a whole number of at least 1, such as 5000000, 5e6 or 5M"
    match = _COUNT.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise InputError(field, value, rule)
    number = Decimal(re.sub("[_,]", "", match["number"])) * _UNITS[match["unit"].lower()]
    if number < 1 or number != number.to_integral_value():
        raise InputError(field, value, rule)
    return int(number)
