"""The exception tree: every error a person can cause, and the exit code the command line gives it.

BudgetnetError          1   anything budgetnet raises on purpose
├── InputError          2   something that was given is wrong: names the field, the value and the rule
│   ├── DataError       2   a data set is missing, corrupt or not what it was declared to be
│   └── RecordError     2   a run folder or a study cannot be read, or belongs to something else
│       └── BusyError   2   another process is at work on it
└── OverBudgetError     3   a network does not fit its budget
"""

from __future__ import annotations

import reprlib
from typing import Any


class _Shortener(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:
            # Python writes no integer of more than some thousands of digits.
            return f"a number of {x.bit_length()} bits"


_shortener = _Shortener()
_shortener.maxstring = _shortener.maxother = 80
_shortener.maxlevel = 2


def shown(value: object) -> str:
    """A value as one short line, safe for values that are huge, nested or hold line breaks."""
    text = _shortener.repr(value)
    return " ".join(text.split())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a machine or a device had no memory left, which torch says by type on some devices, in words on all."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in words)


class BudgetnetError(Exception):
    """Base of everything budgetnet raises on purpose; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class InputError(BudgetnetError, ValueError):
    """Something that was given is wrong.

    Attributes:
        field: where it stands, as a path such as ``stages[2].channels`` or an option such as ``--max-params``.
        value: what was given.
        rule: what would have been right.
    """

    exit_code = 2

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field} = {shown(value)}: {rule}")
        self.field = field
        self.value = value
        self.rule = rule

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would hand on the message alone, and an error could not come back from another process.
        return type(self), (self.field, self.value, self.rule)


class DataError(InputError):
    """A data set is missing, corrupt, or not what it was declared to be."""


class RecordError(InputError):
    """A run folder or a study cannot be read, or was made with other settings."""


class BusyError(RecordError):
    """Another process is at work on the run or the study."""


class OverBudgetError(BudgetnetError):
    """A network does not fit its budget; raised before anything is built or trained."""

    exit_code = 3
