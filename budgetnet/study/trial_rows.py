"""Rows of Optuna's tables: what they say of a trial, also where one is damaged, and how a trial is written in them."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from sys import intern
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Row

from budgetnet.common.errors import short_repr
from budgetnet.study.outcomes import DAMAGE, DAMAGED

Read = TypeVar("Read")

_UNENDING = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
"""Values that are no finite numbers, by the words that Optuna stores for them."""
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""Exceptions from reading a value that stands for nothing."""
_DECODER = json.JSONDecoder()


class DamagedError(ValueError):
    """A field of a trial or of a study has an invalid value."""


def parse(field: str, stored: Any, read: Callable[[Any], Read], rule: str) -> Read:
    """Return what a stored value stands for.

    Raises:
        DamagedError: it stands for nothing.
    """
    try:
        return read(stored)
    except _UNREADABLE:
        raise _damage(field, stored, rule) from None


def _damage(field: str, stored: Any, rule: str) -> DamagedError:
    return DamagedError(f"{field} = {short_repr(stored)}: {rule}")


def damaged(trial_id: int, number: int | None, damage: str) -> FrozenTrial:
    """Return a damaged trial as one that has failed, without anything that was read of it."""
    return FrozenTrial(
        number=-1 if number is None else number,
        state=TrialState.FAIL,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={DAMAGE: damage, "ended": DAMAGED},
        system_attrs={},
        intermediate_values={},
        trial_id=trial_id,
    )


def frozen(row: Row[Any], *others: Sequence[Any]) -> FrozenTrial:
    """Return a trial from its row and its rows of the other tables, whose last column is the trial's id.

    Raises:
        DamagedError: a field is damaged.
    """
    sampled, values, user_attrs, system_attrs, reports = others
    params, distributions = _params(sampled)
    return FrozenTrial(
        number=parse("number", row.number, _whole, "must be a whole number"),
        state=parse("state", row.state, TrialState.__getitem__, f"must be one of {', '.join(TrialState.__members__)}"),
        value=None,
        values=[_value(place, *each) for place, each in enumerate(values)] or None,
        datetime_start=parse("datetime_start", row.datetime_start, _local, "must be a time"),
        datetime_complete=parse("datetime_complete", row.datetime_complete, _local, "must be a time"),
        params=params,
        distributions=distributions,
        user_attrs=_attributes("attribute", user_attrs),
        system_attrs=_attributes("system attribute", system_attrs),
        intermediate_values={
            parse("step of a report", step, _whole, "must be a whole number"): _number(
                f"report at step {step}", value, kind
            )
            for step, value, kind, _ in reports
        },
        trial_id=row.trial_id,
    )


def _params(rows: Sequence[Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    params, distributions = {}, {}
    for name, stored, text, _ in rows:
        try:
            params[intern(name)], distributions[intern(name)] = _param(stored, text)
        except _UNREADABLE:
            parse("parameter", name, intern, "must be a name")
            distribution = parse(f"distribution of parameter {name}", text, _distribution, "must be one")
            raise _damage(f"parameter {name}", stored, f"must be in {distribution}") from None
    return params, distributions


@functools.lru_cache(maxsize=10_000)
def _param(stored: Any, text: str) -> tuple[Any, BaseDistribution]:
    distribution = _distribution(text)
    if not distribution._contains(stored):
        raise ValueError
    return distribution.to_external_repr(stored), distribution


def _attributes(kind: str, rows: Sequence[Any]) -> dict[str, Any]:
    attributes = {}
    for key, text, _ in rows:
        try:
            attributes[intern(key)] = _json(text)
        except _UNREADABLE:
            parse(kind, key, intern, "must have a name")
            raise _damage(f"{kind} {key}", text, "must be JSON") from None
    return attributes


def _json(text: str) -> Any:
    """Return what a text says in JSON, as `json.loads` does in a third of the time."""
    bare = text.strip(" \t\n\r")
    value, end = _DECODER.raw_decode(bare)
    if end != len(bare):
        raise ValueError
    return value


def _value(place: int, objective: Any, stored: Any, kind: Any, _: int) -> float:
    parse("objective", objective, {place: place}.__getitem__, f"must be {place}")
    return _number("value", stored, kind)


def is_whole(stored: Any) -> bool:
    """Return whether a stored value is a whole number that a trial may have for its number or a step."""
    return type(stored) is int and 0 <= stored < 2**31


def _whole(stored: Any) -> int:
    if not is_whole(stored):
        raise ValueError
    return int(stored)


@functools.lru_cache(maxsize=1_000)
def _distribution(text: str) -> BaseDistribution:
    """Return a stored distribution; trials of a study share the object, which must not be changed."""
    return json_to_distribution(text)


def _number(field: str, stored: Any, kind: Any) -> float:
    if kind == "FINITE":
        return parse(field, stored, float, "must be a number")
    return parse(f"type of {field}", kind, _UNENDING.__getitem__, f"must be FINITE, {', '.join(_UNENDING)}")


def stored_report(report: float) -> dict[str, Any]:
    """Return an intermediate value as Optuna stores it, with a type for values that are not finite."""
    if math.isfinite(report):
        return {"intermediate_value": report, "intermediate_value_type": "FINITE"}
    kind = "NAN" if math.isnan(report) else "INF_POS" if report > 0 else "INF_NEG"
    return {"intermediate_value": None, "intermediate_value_type": kind}


def stored_time(moment: datetime | None) -> datetime | None:
    """A local time without a zone, as Optuna keeps it in memory, as the time without a zone that it stores."""
    return None if moment is None else moment.astimezone(timezone.utc).replace(tzinfo=None)  # noqa: UP017 - as above


def _local(stored: Any) -> datetime | None:
    """A stored time as Optuna keeps it in memory: the inverse of `stored_time`."""
    if stored is None:
        return None
    moment = datetime.fromisoformat(str(stored))
    return moment.replace(tzinfo=timezone.utc).astimezone().replace(tzinfo=None)  # noqa: UP017 - as above


def param_rows(trial: FrozenTrial) -> list[dict[str, Any]]:
    """Return the rows of a trial's sampled parameters."""
    return [
        {
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name, value in trial.params.items()
    ]


def attribute_rows(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of attributes."""
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def value_rows(values: Sequence[float] | None) -> list[dict[str, Any]]:
    """Return the rows of a trial's values, finite, one for each objective; none without values."""
    return [{"objective": place, "value": each, "value_type": "FINITE"} for place, each in enumerate(values or ())]
