"""Damaged trials: rows of a study's storage that were changed by hand or by a fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from budgetnet.common.errors import short_repr
from budgetnet.model.deployed.limits import DEPLOYED
from budgetnet.runs.records import MAX_OPERATIONS
from budgetnet.study.outcomes import DAMAGE, is_trained


def damage_of(trial: FrozenTrial, *, objectives: int = 1) -> str | None:
    """Return which field of a trial is damaged and how; None if none is, or if budgetnet did not write the trial.

    Args:
        trial: the trial.
        objectives: number of objectives of its study.
    """
    if DAMAGE in trial.user_attrs:
        return str(trial.user_attrs[DAMAGE])
    if not is_ours(trial):
        return None
    return next(_damages(trial, objectives), None)


def damaged_trials(study: optuna.Study) -> dict[int, str]:
    """Return which field is damaged and how, for each damaged trial by its number."""
    count = len(study.directions)
    damages = {trial.number: damage_of(trial, objectives=count) for trial in study.get_trials(deepcopy=False)}
    return {number: damage for number, damage in damages.items() if damage is not None}


def is_ours(trial: FrozenTrial) -> bool:
    """Return whether budgetnet wrote a trial, damaged or not."""
    return not _MARKS.isdisjoint(trial.user_attrs)


def undamaged(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Return the trained trials of a study in some states, without damaged ones."""
    count = len(study.directions)
    found = study.get_trials(deepcopy=False, states=states)
    return [trial for trial in found if is_trained(trial) and damage_of(trial, objectives=count) is None]


def _damages(trial: FrozenTrial, objectives: int) -> Iterator[str]:
    facts = trial.user_attrs
    yield from _broken(facts, _REQUIRED, missing=True)
    yield from _broken(facts, _OPTIONAL)
    limits = {key: value for key, value in trial.system_attrs.items() if key.startswith("constraints")}
    yield from _broken(limits, dict.fromkeys(limits, _CONSTRAINT), kind="system attribute")
    if is_trained(trial):
        yield from _broken(facts, {"run": _OPTIONAL["run"]}, missing=True)
    if facts.get("validation_correct", 0) > facts.get("validation_images", 0):
        yield _said("attribute validation_correct", facts["validation_correct"], "must be at most validation_images")
    reports = trial.intermediate_values
    yield from _broken(reports, dict.fromkeys(reports, _SHARE), kind="report at step")
    if trial.state == TrialState.COMPLETE:
        values = {} if trial.values is None else dict(enumerate(trial.values))
        yield from _broken({"": values.get(0)}, {"": _SHARE}, kind="value")
        costs = {place: values.get(place) for place in range(1, objectives)}
        yield from _broken(costs, dict.fromkeys(costs, _AMOUNT), kind="value of objective")


def _broken(
    values: Mapping[Any, Any], rules: Mapping[Any, _Rule], *, kind: str = "attribute", missing: bool = False
) -> Iterator[str]:
    for key, rule in rules.items():
        if key not in values:
            if missing:
                yield f"{kind} {key}: missing"
        elif not rule.holds(values[key]):
            yield _said(f"{kind} {key}".strip(), values[key], rule.text)


def _said(field: str, value: object, rule: str) -> str:
    return f"{field} = {short_repr(value)}: {rule}"


class _Rule(NamedTuple):
    holds: Callable[[Any], bool]
    text: str


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


_TEXT = _Rule(lambda value: isinstance(value, str), "must be text")
_COUNT = _Rule(lambda value: type(value) is int and 0 <= value < 2**63, "must be a whole number of at least 0")
_OPERATIONS = _Rule(
    lambda value: type(value) is int and 0 <= value <= MAX_OPERATIONS, "must be a whole number of at least 0"
)
_AMOUNT = _Rule(lambda value: _is_number(value) and value >= 0, "must be a number of at least 0")
_SHARE = _Rule(lambda value: _is_number(value) and 0 <= value <= 1, "must be a number from 0 to 1")
_CONSTRAINT = _Rule(_is_number, "must be a number")
_FOLDER = _Rule(
    lambda value: isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\\0"),
    "must be the name of a folder",
)
_FLAG = _Rule(lambda value: isinstance(value, bool), "must be true or false")
_MAPPING = _Rule(lambda value: isinstance(value, dict), "must be a mapping")

_REQUIRED = {
    "architecture": _TEXT,
    "candidate": _TEXT,
    "spec": _TEXT,
    "params": _COUNT,
    "macs": _COUNT,
    "activations": _COUNT,
    "blocks": _COUNT,
    "budget_used": _AMOUNT,
}
_OPTIONAL = {
    "run": _FOLDER,
    "seed": _COUNT,
    "epochs": _COUNT,
    "cycles": _COUNT,
    "seconds": _AMOUNT,
    "train_flops": _OPERATIONS,
    "ended": _TEXT,
    "status": _TEXT,
    "trained": _FLAG,
    "enqueued": _MAPPING,
    "host": _TEXT,
    "proposal": _COUNT,
    "deaths": _COUNT,
    "epochs_at_death": _COUNT,
    "retry_of": _COUNT,
    "repeat_of": _COUNT,
    "validation_accuracy": _SHARE,
    "validation_correct": _COUNT,
    "validation_images": _COUNT,
    **dict.fromkeys(DEPLOYED, _AMOUNT),
}
_MARKS = frozenset({"architecture", "candidate", "budget_used"})
"""Attributes by which a trial of budgetnet is known, even where one is missing."""
