"""Designs of a study: which combinations of levels and options are trained, and what each is compared with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.levels import is_removal, level_key, setting_text
from budgetnet.experiments.ablation.overrides import Setup, override

Design = Literal["one-at-a-time", "leave-one-out", "alone-and-leave-one-out", "full-factorial"]
"""Which settings are tried. ``one-at-a-time``: each level that differs from the base, and each option, alone.
``leave-one-out``: the same levels, where the base is the whole that each variant lacks a part of; with options the
whole is the base with all options together, and each variant lacks one option. ``alone-and-leave-one-out``, for options
only: the base, each option alone, all options together, and all without each one. ``full-factorial``: each combination
of levels, and of options that are on or off."""

BASE = "base"
"""Name of the variant in which nothing was changed."""
ALL = "all"
"""Name of the variant with all options."""

Factors = Mapping[str, Sequence[Any]]
"""Levels by dotted path."""
Options = Mapping[str, Mapping[str, Any]]
"""Values by dotted path, by the option's name."""


class Part(NamedTuple):
    """One level of a factor, or one option: what a design adds or omits as a whole."""

    label: str
    """The option's name, or the level in a few words."""
    settings: dict[str, Any]
    """Levels by dotted path."""
    is_option: bool


class Entry(NamedTuple):
    """A variant that a design asks for."""

    name: str
    """What the design calls it; empty where its name is made of its parts."""
    parts: tuple[Part, ...]
    compared_with: str
    """Name of the entry that it is compared with; empty for the first entry."""
    omitted: str = ""
    """The option that is missing from all options."""

    @property
    def settings(self) -> dict[str, Any]:
        """The levels of all parts; of two for one path the later one."""
        return {path: level for part in self.parts for path, level in part.settings.items()}


def count_of(factors: Factors, options: Options, design: Design) -> int:
    """How many variants a design asks for at most, the base included; equal ones are not merged yet."""
    counts = [len(levels) for levels in factors.values()]
    if design == "full-factorial":
        return math.prod([*counts, *(2 for _ in options)])
    if design == "alone-and-leave-one-out":
        return 2 + 2 * len(options)
    return 1 + sum(counts) + len(options)


def check_design(factors: Factors, options: Options, design: Design) -> None:
    """Refuses factors and options that a design has no use for.

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
                rule = f"is set to another value by options.{other}, and this design combines the two"
                raise InputError(f"options.{name}.{path}", level, rule)


def entries_of(base: Setup, factors: Factors, options: Options, design: Design) -> Iterator[tuple[Entry, Setup]]:
    """Every variant that a design asks for, with its network and recipe; what the others are compared with is first.

    Args:
        base: what settings are laid over.
        factors: levels by path, as `read_level` keeps them.
        options: values by path, likewise, by the options' names.
        design: which settings are tried.

    Raises:
        InputError: a setting leads nowhere or breaks a rule, or a factor or an option changes nothing.
    """
    levels = {path: [Part(setting_text(path, each), {path: each}, False) for each in factors[path]] for path in factors}
    extras = [Part(name, dict(settings), True) for name, settings in options.items()]
    first = Entry(BASE, (), "")
    if design == "leave-one-out" and extras:
        first = Entry(ALL, tuple(extras), "")
    whole = lay(base, first)
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
            raise InputError(f"factors.{path}", list(factors[path]), "changes nothing: the base is so already")
        yield from changed
    if design != "leave-one-out":
        yield from _alone(base, extras)
    if design == "alone-and-leave-one-out":
        yield _with_setup(base, Entry(ALL, tuple(extras), BASE))
    if design != "one-at-a-time":
        yield from _omitting(base, extras, prefix="" if design == "leave-one-out" else f"{ALL} ")


def _with_setup(base: Setup, entry: Entry) -> tuple[Entry, Setup]:
    return entry, lay(base, entry)


def _alone(base: Setup, extras: Sequence[Part]) -> Iterator[tuple[Entry, Setup]]:
    for part in extras:
        entry = Entry(part.label, (part,), BASE)
        setup = lay(base, entry)
        if setup.key == base.key:
            raise InputError(f"options.{part.label}", part.settings, "changes nothing: the base is so already")
        yield entry, setup


def _omitting(base: Setup, extras: Sequence[Part], *, prefix: str) -> Iterator[tuple[Entry, Setup]]:
    whole = lay(base, Entry(ALL, tuple(extras), ""))
    for part in extras:
        others = tuple(other for other in extras if other is not part)
        entry = Entry(f"{prefix}without {part.label}", others, ALL, part.label)
        setup = lay(base, entry)
        if setup.key == whole.key:
            rule = "changes nothing: without it, all options together come to the same"
            raise InputError(f"options.{part.label}", part.settings, rule)
        yield entry, setup


def lay(base: Setup, entry: Entry) -> Setup:
    """The base with an entry's settings.

    Raises:
        InputError: a setting leads nowhere or breaks a rule; the field is the option's, where one is to blame.
    """
    try:
        return override(base, entry.settings)
    except InputError as error:
        name = entry.name or text_of(entry.parts)
        field = f"{_option_at_fault(entry.parts, error.field)}{error.field}"
        raise InputError(field, error.value, f"{error.rule} (in the variant {name})") from None


def _option_at_fault(parts: Sequence[Part], field: str) -> str:
    """The beginning of a field's path: of the only option, or of the one that sets the field or a part of it."""
    for part in parts:
        sets = any(field == path or field.startswith((f"{path}.", f"{path}[")) for path in part.settings)
        if part.is_option and (sets or len(parts) == 1):
            return f"options.{part.label}."
    return ""


def text_of(parts: Sequence[Part]) -> str:
    """Parts for people, and the base where there are none."""
    return ", ".join(part.label for part in parts) or BASE
