"""Exceptions and the exit codes that the command line returns for them.

BudgetnetError          1   base class of all errors raised by budgetnet
├── InputError          2   invalid input: names the field, the value and the rule
│   ├── DataError       2   a data set is missing, corrupt or does not match its declaration
│   └── RecordError     2   a run folder or study is unreadable or was created with other settings
│       └── BusyError   2   the run or study is in use by another process
└── OverBudgetError     3   a network exceeds its budget
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "unable to allocate"),
    *("failed to map segment", "bad_alloc", "bad allocation"),
)
"""Parts of the messages of allocators, of the loader of libraries, and of the system."""


class _Shortener(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:
            # Python refuses to print integers of more than 4,300 digits.
            return f"a number of {x.bit_length()} bits"


_shortener = _Shortener()
_shortener.maxstring = _shortener.maxother = 80
_shortener.maxlevel = 2


def caused_by_interrupt(error: BaseException) -> bool:
    """Return whether an exception is a KeyboardInterrupt, or was raised in place of one.

    Compiled code turns an interrupt into another exception: one that falls into the import of a compiled module raises
    ImportError, and in Python 3.11 one in a ``__set_name__`` RuntimeError. What fails while an interrupt is handled
    does not count.
    """
    found: BaseException | None = error
    # ``raise error from error`` makes an exception its own cause.
    seen: set[int] = set()
    while found is not None and not isinstance(found, KeyboardInterrupt) and id(found) not in seen:
        seen.add(id(found))
        # The context of ``raise ... from None`` is what was raised before.
        found = found.__cause__ or (found.__context__ if found.__suppress_context__ else None)
    return isinstance(found, KeyboardInterrupt)


def short_repr(value: object) -> str:
    """Return a short one-line representation, also of huge or deeply nested values and of text with line breaks."""
    text = _shortener.repr(value)
    return " ".join(text.split())


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the machine or the device ran out of memory.

    Checks the message, because torch raises a dedicated type on some devices only.
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in _OUT_OF_MEMORY)


def is_lack_of_resources(error: BaseException) -> bool:
    """Return whether an error says nothing about the file being read: no memory, no thread, a failing system call."""
    if isinstance(error, OSError):
        return error.errno is not None
    return is_out_of_memory(error) or isinstance(error, ImportError) or "new thread" in str(error)


class BudgetnetError(Exception):
    """Base class of all errors raised by budgetnet."""

    exit_code = 1
    """Exit code of the command line."""


class InputError(BudgetnetError, ValueError):
    """Invalid input.

    Attributes:
        field: name of the input: a path such as ``stages[2].channels`` or an option such as ``--max-params``.
        value: the invalid value.
        rule: the rule that it breaks.
    """

    exit_code = 2

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field} = {short_repr(value)}: {rule}")
        self.field = field
        self.value = value
        self.rule = rule

    def __reduce__(self) -> tuple[Any, ...]:
        # The default pickles the message alone, so the error could not be raised again in another process.
        return type(self), (self.field, self.value, self.rule)


@contextmanager
def named(field: str) -> Iterator[None]:
    """Raise errors of a value under the name of its field; errors of a file keep the name of the file."""
    try:
        yield
    except InputError as error:
        raise InputError(error.field if ": " in error.field else field, error.value, error.rule) from None


class DataError(InputError):
    """A data set is missing, corrupt or does not match its declaration."""


class RecordError(InputError):
    """A run folder or study is unreadable or was created with other settings."""


class BusyError(RecordError):
    """The run or study is in use by another process."""


class OverBudgetError(BudgetnetError):
    """A network exceeds its budget; raised before it is built or trained."""

    exit_code = 3
