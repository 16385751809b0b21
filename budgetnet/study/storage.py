"""Studies in Optuna's storage: opened, found again, and read back as plain candidates."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import NullPool, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from budgetnet.common.config import without_password
from budgetnet.common.errors import InputError, RecordError
from budgetnet.runs.training_cost import FLOPS_PER_MAC
from budgetnet.study.bulk import TrialStorage
from budgetnet.study.outcomes import GAVE_WAY, REPEATED, is_interrupted, is_over_budget, is_stopped, is_trained
from budgetnet.study.presence import GRACE_PERIOD, HEARTBEAT_INTERVAL
from budgetnet.study.settings import StudySettings
from budgetnet.study.trials import Outcome, Trial

SETTINGS_KEY = "budgetnet:settings"
"""User attribute of a study that holds its settings as JSON."""
STORAGE_ERRORS = (SQLAlchemyError, StorageInternalError)
"""What storages complain with."""

_ALONE_PATIENCE = 60
"""Seconds to wait for another process to make tables or a study."""
_ALONE_KEY = 0x6275646765746E74
"""Number of the lock that processes take for that on a PostgreSQL server; nothing else there should have it."""


def default_storage(out: Path) -> str:
    """URL of the SQLite file in which studies live unless another storage is named."""
    return URL.create("sqlite", database=str((out / "studies.db").resolve())).render_as_string()


@contextmanager
def storage_errors(storage: RDBStorage | str) -> Iterator[None]:
    """Turns what a storage, or the one of that URL, can complain of into one line."""
    try:
        yield
    except STORAGE_ERRORS as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        original = getattr(cause, "orig", None) or cause or error
        url = storage if isinstance(storage, str) else str(storage.url)
        raise RecordError("storage", without_password(url), f"cannot be used: {_one_line(original)}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextmanager
def _alone(url: URL) -> Iterator[None]:
    """One process at a time, as far as the storage has a way to tell: two must not both make the tables, or a study."""
    backend = url.get_backend_name()
    if backend == "sqlite" and url.database not in (None, "", ":memory:"):
        with FileLock(f"{url.database}.lock", timeout=_ALONE_PATIENCE):
            yield
    elif backend == "postgresql":
        engine = create_engine(url, poolclass=NullPool)
        # The lock falls with the transaction, and so with the process.
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{_ALONE_PATIENCE}s'"))
            connection.execute(select(func.pg_advisory_xact_lock(_ALONE_KEY)))
            yield
    else:
        yield


def open_storage(url: str, *, create: bool) -> RDBStorage:
    """Opens a storage.

    Args:
        url: an SQLAlchemy URL, such as ``sqlite:///runs/studies.db``.
        create: whether a missing SQLite file is made; a verb that only reads leaves no trace.

    Raises:
        InputError: the URL is malformed.
        RecordError: the storage is missing, corrupt, locked, or of another version of Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise InputError("storage", without_password(url), "must be a URL such as sqlite:///runs/studies.db") from None
    if "@" in (parsed.host or ""):
        raise InputError("storage", without_password(url), "an @ in a user's name or password is written %40 in a URL")
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and parsed.database in (None, "", ":memory:"):
        raise InputError("storage", url, "must name a file: what is only in memory is lost with the command")
    if sqlite and parsed.database:
        file = Path(parsed.database)
        if create:
            file.parent.mkdir(parents=True, exist_ok=True)
        elif not file.exists():
            raise RecordError("storage", url, "no study is kept here yet; budgetnet search makes one")
    try:
        with storage_errors(url):
            if not create and not inspect(create_engine(url, poolclass=NullPool)).has_table("studies"):
                raise RecordError(
                    "storage", without_password(url), "no study is kept here yet; budgetnet search makes one"
                )
            with _alone(parsed) if create else nullcontext(), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                storage = TrialStorage(
                    url,
                    # A server may have been started again since a connection was used last, hours ago maybe.
                    engine_kwargs={"connect_args": {"timeout": 30}} if sqlite else {"pool_pre_ping": True},
                    skip_table_creation=not create,
                    heartbeat_interval=HEARTBEAT_INTERVAL,
                    grace_period=GRACE_PERIOD,
                )
    except (ImportError, RuntimeError) as error:
        raise RecordError("storage", without_password(url), f"cannot be used: {_one_line(error)}") from None
    if sqlite and create:
        event.listen(storage.engine, "connect", _tune_sqlite)
        storage.engine.dispose()
    return storage


def _tune_sqlite(connection: Any, _record: Any) -> None:
    """One write ahead log instead of a rollback file for each commit: safe against kills, and several times as fast."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def open_study(storage: RDBStorage, name: str, settings: StudySettings) -> optuna.Study:
    """Open the study of that name, or make it; the config that it was made or resumed with is stored with it.

    Raises:
        RecordError: the study exists and asks another question, or is of another version.
    """
    # Between its making and its question a study looks like one that others made.
    with _alone(storage.engine.url):
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        if SETTINGS_KEY not in study.user_attrs:
            if study.get_trials(deepcopy=False):
                raise RecordError("study", name, "was not made by budgetnet; name another")
            study.set_user_attr(SETTINGS_KEY, json.dumps(settings.to_mapping()))
            return study
        found = study_settings(study)
        if found.digest != settings.digest:
            differing = ", ".join(found.differences(settings))
            raise RecordError("study", name, f"was made with another {differing}; name another study, or none")
        resumed = settings.model_copy(update={"config": settings.config.resuming(found.config)}).to_mapping()
        if resumed != found.to_mapping():
            study.set_user_attr(SETTINGS_KEY, json.dumps(resumed))
    return study


def study_settings(study: optuna.Study) -> StudySettings:
    """Return the question that a study asks, with the config of its search.

    Raises:
        RecordError: the study was not made by budgetnet, or by another version.
    """
    try:
        mapping = json.loads(study.user_attrs[SETTINGS_KEY])
    except KeyError:
        raise RecordError("study", study.study_name, "was not made by budgetnet") from None
    if mapping.get("schema_version") == 1:
        rule = "was made by an earlier version of budgetnet, whose studies this one does not read; name another study"
        raise RecordError("study", study.study_name, rule)
    try:
        return StudySettings.from_mapping(mapping)
    except InputError as error:
        rule = f"cannot be read by this version of budgetnet: {error.field} {error.rule}"
        raise RecordError("study", study.study_name, rule) from None


def find_study(storage: RDBStorage, name: str | None) -> optuna.Study:
    """The study of that name, or the one that was worked on last.

    Raises:
        RecordError: there is no such study, or none at all.
    """
    summaries = optuna.get_all_study_summaries(storage, include_best_trial=False)
    known = {summary.study_name: summary for summary in summaries}
    if not known:
        raise RecordError("study", name, "no study is kept here yet; budgetnet search makes one")
    if name is None:
        started = [summary for summary in summaries if summary.datetime_start is not None] or summaries
        name = max(started, key=_last_worked_on(storage)).study_name
    elif name not in known:
        raise RecordError("study", name, f"no such study; there are {', '.join(sorted(known))}")
    return optuna.load_study(study_name=name, storage=storage)


def _last_worked_on(storage: RDBStorage) -> Any:
    def key(summary: Any) -> tuple[str, int]:
        study_id = storage.get_study_id_from_name(summary.study_name)
        trials = storage.get_all_trials(study_id, deepcopy=False)
        return max((str(trial.datetime_start or "") for trial in trials), default=""), study_id

    return key


def read_trials(study: optuna.Study) -> list[Trial]:
    """Every trial of a study, in their order; what other means than a search wrote there is left out."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if "architecture" in trial.user_attrs]
    if any(is_trained(trial) and "train_flops" not in trial.user_attrs for trial in trials):
        images = study_settings(study).data.train_images
        return [_row(trial, train_images=images) for trial in trials]
    return [_row(trial) for trial in trials]


def _row(trial: FrozenTrial, *, train_images: int | None = None) -> Trial:
    """Read a trial.

    Args:
        trial: of a study.
        train_images: training images of the study, where it may hold trials of versions that kept no `train_flops`;
            those versions trained on every image in every epoch, at full size.
    """
    facts: dict[str, Any] = trial.user_attrs
    correct, images = facts.get("validation_correct"), facts.get("validation_images")
    kept: dict[str, Any] = {key: facts[key] for key in _ALWAYS} | {key: facts.get(key) for key in _TRAINED}
    flops = facts.get("train_flops")
    if flops is None and train_images is not None and is_trained(trial) and "epochs" in facts:
        flops = FLOPS_PER_MAC * facts["macs"] * train_images * facts["epochs"]
    return Trial(
        number=trial.number,
        fate=_fate(trial),
        # Of a candidate answered from the record only its value is written down again.
        accuracy=trial.value if correct is None and trial.state == TrialState.COMPLETE else _share(correct, images),
        correct=correct,
        images=images,
        gap=facts.get("gap_to_reference"),
        train_flops=flops,
        trained=is_trained(trial),
        by_hand="by_hand" in facts,
        reports=MappingProxyType(trial.intermediate_values),
        drawn=MappingProxyType(trial.params),
        began=trial.datetime_start,
        finished=trial.datetime_complete,
        **kept,
    )


_ALWAYS = ("architecture", "spec", "params", "macs", "activations", "budget_used")
_TRAINED = ("epochs", "cycles", "seconds", "ended", "seed", "run")


def _share(correct: int | None, images: int | None) -> float | None:
    return None if correct is None or not images else correct / images


def _fate(trial: FrozenTrial) -> Outcome:
    ended = trial.user_attrs.get("ended")
    fates: tuple[tuple[bool, Outcome], ...] = (
        (not trial.state.is_finished(), "running"),
        (is_over_budget(trial), "over budget"),
        (ended == REPEATED, "repeated"),
        (ended in GAVE_WAY, "left to another"),
        (is_interrupted(trial), "interrupted"),
        (is_stopped(trial), "pruned"),
        (trial.state == TrialState.COMPLETE, "complete"),
    )
    return next((fate for holds, fate in fates if holds), "no result")
