"""Optuna's tables, and trials read from them, with whatever is damaged."""

from __future__ import annotations

import functools
import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, groupby
from operator import itemgetter
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial
from sqlalchemy import ColumnElement, Connection, Engine, MetaData, Row, String, Table, select, type_coerce

from budgetnet.study.outcomes import DAMAGE
from budgetnet.study.trial_rows import DamagedError, damaged, frozen, is_whole

AT_ONCE = 500
"""Trials whose rows one query asks for: databases limit the values in a query."""


class Tables(NamedTuple):
    """Tables of a storage."""

    studies: Table
    study_user_attributes: Table
    study_system_attributes: Table
    trials: Table
    trial_params: Table
    trial_values: Table
    trial_user_attributes: Table
    trial_system_attributes: Table
    trial_intermediate_values: Table


@functools.lru_cache(maxsize=8)
def tables_of(engine: Engine) -> Tables:
    """Return the tables of a storage."""
    known = MetaData()
    known.reflect(engine, only=Tables._fields)
    return Tables(*(known.tables[name] for name in Tables._fields))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the search for unreachable cycles: rows have none, and going through very many takes as long as reading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_no_collection()
def trials_where(connection: Connection, tables: Tables, condition: ColumnElement[bool]) -> list[FrozenTrial]:
    """Return the trials that meet a condition, in the order of their ids; damaged ones have the attribute `DAMAGE`."""
    # Times are read as text: of a damaged one SQLAlchemy would return no row at all.
    columns = [
        type_coerce(each, String).label(each.name) if each.name.startswith("datetime") else each
        for each in tables.trials.c
    ]
    # The state comes first: what is read behind it can only be newer, so a trial that has ended is read whole.
    rows = connection.execute(select(*columns).where(condition).order_by(tables.trials.c.trial_id)).all()
    trials: list[FrozenTrial] = []
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        ids = [row.trial_id for row in some]

        def of_each(table: Table, order: str, *names: str, ids: list[int] = ids) -> dict[int, list[Row[Any]]]:
            columns = [table.c[name] for name in (*names, "trial_id")]
            wanted = select(*columns).where(table.c.trial_id.in_(ids)).order_by(table.c.trial_id, table.c[order])
            return {key: list(each) for key, each in groupby(connection.execute(wanted).all(), key=itemgetter(-1))}

        attribute = ("key", "value_json")
        others_of = (
            of_each(tables.trial_params, "param_id", "param_name", "param_value", "distribution_json"),
            of_each(tables.trial_values, "objective", "objective", "value", "value_type"),
            of_each(tables.trial_user_attributes, "trial_user_attribute_id", *attribute),
            of_each(tables.trial_system_attributes, "trial_system_attribute_id", *attribute),
            of_each(tables.trial_intermediate_values, "step", "step", "intermediate_value", "intermediate_value_type"),
        )
        for row in some:
            others = (rows_of.get(row.trial_id, ()) for rows_of in others_of)
            try:
                trials.append(frozen(row, *others))
            except DamagedError as error:
                number = row.number if is_whole(row.number) else None
                trials.append(damaged(row.trial_id, number, str(error)))
    _number_apart(connection, tables, trials, rows)
    return trials


def _number_apart(connection: Connection, tables: Tables, trials: list[FrozenTrial], rows: Sequence[Row[Any]]) -> None:
    """Give numbers that no trial has to those without a number and to those with the number of another trial."""
    uses = Counter(trial.number for trial in trials)
    wrong = [
        place
        for place, trial in enumerate(trials)
        if trial.number < 0 or (uses[trial.number] > 1 and trial.number != place)
    ]
    if not wrong:
        return
    column, study = tables.trials.c.number, tables.trials.c.study_id
    taken = set(connection.execute(select(column).where(study == rows[0].study_id)).scalars())
    free = (number for number in count() if number not in taken)
    for place in wrong:
        trial, number = trials[place], next(free)
        damage = f"number = {trial.number}: is the number of another trial"
        trials[place] = damaged(trial._trial_id, number, trial.user_attrs.get(DAMAGE, damage))
