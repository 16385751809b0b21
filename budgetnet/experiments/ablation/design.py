"""Designs of a study: the combinations of levels and options to train, and what each is compared with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.levels import is_removal, level_key, setting_text
from budgetnet.experiments.ablation.overrides import Setup, override

Design = Literal["one-at-a-time", "leave-one-out", "alone-and-leave-one-out", "full-factorial"]
"""Settings to train. ``one-at-a-time``: each level that differs from the base, and each option, alone.
``leave-one-out``: the same levels, for a base that each variant lacks a part of; with options, all options together are
the reference, and each variant omits one. ``alone-and-leave-one-out``, for options only: the base, each option alone,
all options together, and all without each one. ``full-factorial``: each combination of levels and of options."""

BASE = "base"
"""Name of the unchanged variant."""
ALL = "all"
"""Name of the variant with all options."""

Factors = Mapping[str, Sequence[Any]]
"""Levels by dotted path."""
Options = Mapping[str, Mapping[str, Any]]
"""Values by dotted path, by the option's name."""


class Part(NamedTuple):
    """A level of a factor, or an option, which a design adds or omits as a whole."""

    label: str
    """Name of the option, or short text of the level."""
    settings: dict[str, Any]
    """Levels by dotted path."""
    is_option: bool


class Entry(NamedTuple):
    """A variant of a design."""

    name: str
    """Name given by the design; empty if the name is made of the parts."""
    parts: tuple[Part, ...]
    compared_with: str
    """Name of the entry that it is compared with; empty for the first entry."""
    omitted: str = ""
    """Option that is omitted from all options."""

    @property
    def settings(self) -> dict[str, Any]:
        """Levels of all parts by path; a later part overrides an earlier one."""
        return {path: level for part in self.parts for path, level in part.settings.items()}


def count_of(factors: Factors, options: Options, design: Design) -> int:
    """Return the number of variants of a design with the base, before equal ones are merged."""
    counts = [len(levels) for levels in factors.values()]
    if design == "full-factorial":
        return math.prod([*counts, *(2 for _ in options)])
    if design == "alone-and-leave-one-out":
        return 2 + 2 * len(options)
    return 1 + sum(counts) + len(options)


def check_design(factors: Factors, options: Options, design: Design) -> None:
    """Require that a design can use the factors and options.

    Raises:
        InputError: a factorial's factor has one level, the design takes other factors or more options, or two options
            that are combined set one path to different values.
    """
    for path, levels in factors.items():
        if design == "full-factorial" and len(levels) < 2:
            rule = "must have two levels or more in a full factorial; what is the same for all belongs in changes"
            raise InputError(f"factors.{path}", list(levels), rule)
        if design == "full-factorial" and (name := next((name for name in options if path in options[name]), None)):
            rule = "is set by a factor as well; a full factorial combines both"
            raise InputError(f"options.{name}.{path}", options[name][path], rule)
    if design == "alone-and-leave-one-out":
        if factors:
            raise InputError("factors", list(factors), "must not be given with this design: it is for options only")
        if len(options) < 2:
            raise InputError("options", list(options), "must be at least two with this design")
    if design != "one-at-a-time":
        _check_agreement(options)


def _check_agreement(options: Options) -> None:
    first: dict[str, tuple[str, Any]] = {}
    for name, settings in options.items():
        for path, level in settings.items():
            other, present = first.setdefault(path, (name, level))
            same = level_key(level) == level_key(present) or (is_removal(path, level) and is_removal(path, present))
            if not same:
                rule = f"is set to another value by options.{other}, and this design combines them"
                raise InputError(f"options.{name}.{path}", level, rule)


def entries_of(base: Setup, factors: Factors, options: Options, design: Design) -> Iterator[tuple[Entry, Setup]]:
    """Yield the variants of a design with their networks and recipes, the reference of the comparisons first.

    Args:
        base: network and recipe that settings override.
        factors: levels by path, from `read_level`.
        options: values by path, from `read_level`, by the names of the options.
        design: the design.

    Raises:
        InputError: a setting has no such path or breaks a rule, or a factor or an option changes nothing.
    """
    levels = {path: [Part(setting_text(path, each), {path: each}, False) for each in factors[path]] for path in factors}
    extras = [Part(name, dict(settings), True) for name, settings in options.items()]
    first = Entry(BASE, (), "")
    if design == "leave-one-out" and extras:
        first = Entry(ALL, tuple(extras), "")
    whole = setup_of(base, first)
    yield first, whole
    if design == "full-factorial":
        sides: list[Sequence[Part | None]] = [*levels.values(), *([None, part] for part in extras)]
        for combination in itertools.product(*sides):
            yield _with_setup(base, Entry("", tuple(filter(None, combination)), BASE))
        return
    for path, parts in levels.items():
        laid = [_with_setup(base, Entry(part.label, (*first.parts, part), first.name)) for part in parts]
        changed = [(entry, setup) for entry, setup in laid if setup.key != whole.key]
        if not changed:
            raise InputError(f"factors.{path}", list(factors[path]), "changes nothing in the base")
        yield from changed
    if design != "leave-one-out":
        yield from _alone(base, extras)
    if design == "alone-and-leave-one-out":
        yield _with_setup(base, Entry(ALL, tuple(extras), BASE))
    if design != "one-at-a-time":
        yield from _omitting(base, extras, prefix="" if design == "leave-one-out" else f"{ALL} ")


def _with_setup(base: Setup, entry: Entry) -> tuple[Entry, Setup]:
    return entry, setup_of(base, entry)


def _alone(base: Setup, extras: Sequence[Part]) -> Iterator[tuple[Entry, Setup]]:
    for part in extras:
        entry = Entry(part.label, (part,), BASE)
        setup = setup_of(base, entry)
        if setup.key == base.key:
            raise InputError(f"options.{part.label}", part.settings, "changes nothing in the base")
        yield entry, setup


def _omitting(base: Setup, extras: Sequence[Part], *, prefix: str) -> Iterator[tuple[Entry, Setup]]:
    whole = setup_of(base, Entry(ALL, tuple(extras), ""))
    for part in extras:
        others = tuple(other for other in extras if other is not part)
        entry = Entry(f"{prefix}without {part.label}", others, ALL, part.label)
        setup = setup_of(base, entry)
        if setup.key == whole.key:
            rule = "changes nothing: all options together are the same without it"
            raise InputError(f"options.{part.label}", part.settings, rule)
        yield entry, setup


def setup_of(base: Setup, entry: Entry) -> Setup:
    """Return the base with the settings of an entry.

    Raises:
        InputError: a setting has no such path or breaks a rule; the field names the option that set it.
    """
    try:
        return override(base, entry.settings)
    except InputError as error:
        name = entry.name or text_of(entry.parts)
        field = f"{_option_prefix(entry.parts, error.field)}{error.field}"
        raise InputError(field, error.value, f"{error.rule} (in the variant {name})") from None


def _option_prefix(parts: Sequence[Part], field: str) -> str:
    """Return the prefix of a field in errors: the option that sets it, or the only option."""
    for part in parts:
        sets = any(field == path or field.startswith((f"{path}.", f"{path}[")) for path in part.settings)
        if part.is_option and (sets or len(parts) == 1):
            return f"options.{part.label}."
    return ""


def text_of(parts: Sequence[Part]) -> str:
    """Return the labels of the parts, or ``base`` without parts."""
    return ", ".join(part.label for part in parts) or BASE
