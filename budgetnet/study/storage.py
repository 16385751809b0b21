"""Studies in Optuna's storage: open, find and read them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import NullPool, QueuePool, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from budgetnet.common.errors import InputError, RecordError, short_repr
from budgetnet.common.extras import install_command
from budgetnet.common.files import exists, require_folder, resolved
from budgetnet.common.formatting import named_few
from budgetnet.common.passwords import hide_passwords, without_password
from budgetnet.study.bulk import TrialStorage, study_ids
from budgetnet.study.damage import damaged_trials
from budgetnet.study.objectives import directions, metric_names
from budgetnet.study.settings import StudySettings

_log = logging.getLogger(__name__)


def _is_no_interrupt(record: logging.LogRecord) -> bool:
    """Return whether a log record is not about an interrupt that fell into the closing of a connection."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or isinstance(error, Exception)


# SQLAlchemy raises such an interrupt, and logs it with a traceback too.
for _pool in (NullPool, QueuePool):
    logging.getLogger(f"{_pool.__module__}.{_pool.__name__}").addFilter(_is_no_interrupt)

SETTINGS_KEY = "budgetnet:settings"
"""User attribute of a study that holds its settings as JSON."""
STORAGE_ERRORS = (SQLAlchemyError, StorageInternalError)
"""Errors that storages raise."""

_LOCK_TIMEOUT = 60
"""Seconds to wait for another process that creates tables or a study."""
_LOCK_KEY = 0x6275646765746E74
"""Key of the advisory lock that serialises this on a PostgreSQL server."""


STORAGE_FILE = "studies.db"
"""Name of the default storage in a folder of run folders."""


def default_storage(out: Path) -> str:
    """Return the URL of the default storage, an SQLite file in the folder of run folders."""
    return URL.create("sqlite", database=str(resolved(out / STORAGE_FILE))).render_as_string()


def _engine_options(url: URL, *, create: bool) -> dict[str, Any]:
    """Return options of SQLAlchemy for a storage."""
    if url.get_backend_name() == "sqlite":
        return _sqlite_options(Path(url.database or ""), create=create)
    # A server may have been restarted since the connection was last used.
    return {"pool_pre_ping": True, **server_options(url)}


def server_options(url: URL) -> dict[str, Any]:
    """Return options of SQLAlchemy for any connection to a server."""
    if url.get_driver_name().startswith("psycopg") and "connect_timeout" not in url.query:
        # Without a limit, connecting to a machine that is away takes minutes.
        return {"connect_args": {"connect_timeout": 10}}
    return {}


def _sqlite_options(file: Path, *, create: bool) -> dict[str, Any]:
    log, index = Path(f"{file}-wal"), Path(f"{file}-shm")
    if create or os.access(file.parent, os.W_OK) or index.exists():
        return {"connect_args": {"timeout": 30}}
    # In a folder that cannot be written to, SQLite could not create the files of its write-ahead log.
    if log.exists():
        return {"creator": lambda: _connect_to_copy(file, log)}
    address = f"file:{quote(str(file.absolute()))}?immutable=1"
    return {"creator": lambda: sqlite3.connect(address, uri=True, check_same_thread=False)}


def _connect_to_copy(file: Path, log: Path) -> sqlite3.Connection:
    """Connect to a copy in memory of a file with a write-ahead log, as a killed search leaves them."""
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    with TemporaryDirectory() as folder:
        for each in (file, log):
            shutil.copyfile(each, Path(folder) / each.name)
        with closing(sqlite3.connect(Path(folder) / file.name)) as copy:
            copy.backup(memory)
    return memory


@contextmanager
def storage_errors(storage: RDBStorage | str) -> Iterator[None]:
    """Raise the errors of a storage, or of the storage at a URL, as `RecordError`."""
    try:
        yield
    except STORAGE_ERRORS as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        original = getattr(cause, "orig", None) or cause or error
        url = storage if isinstance(storage, str) else str(storage.url)
        raise _unusable(url, original) from None


def _unusable(url: str, cause: BaseException, hint: str = "") -> RecordError:
    message = hide_passwords(" ".join(str(cause).split()), url)
    return RecordError("storage", without_password(url), f"cannot be used: {message}{hint}")


def _no_study(url: str) -> RecordError:
    return RecordError("storage", without_password(url), "the storage has no study yet; budgetnet search creates one")


@contextmanager
def _exclusive(url: URL) -> Iterator[None]:
    """Serialise the creation of tables and studies between processes, on SQLite files and PostgreSQL."""
    backend = url.get_backend_name()
    if backend == "sqlite" and url.database not in (None, "", ":memory:"):
        with FileLock(f"{url.database}.lock", timeout=_LOCK_TIMEOUT):
            yield
    elif backend == "postgresql":
        engine = create_engine(url, poolclass=NullPool, **server_options(url))
        # The lock is released with the transaction, also when the process dies.
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}s'"))
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))
            yield
    else:
        yield


def open_storage(url: str, *, create: bool) -> RDBStorage:
    """Open a storage.

    Args:
        url: an SQLAlchemy URL, such as ``sqlite:///runs/studies.db``.
        create: whether to create missing tables and a missing SQLite file.

    Raises:
        InputError: the URL is malformed, or there can be no such file.
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
        raise InputError(
            "storage", without_password(url), "must name a file: what is only in memory is lost with the command"
        )
    if sqlite and parsed.database:
        file = Path(parsed.database)
        if create:
            require_folder(file.parent, field="storage")
            file.parent.mkdir(parents=True, exist_ok=True)
        elif not exists(file):
            raise _no_study(url)
    try:
        with storage_errors(url):
            options = _engine_options(parsed, create=create)
            if not create and not inspect(create_engine(url, poolclass=NullPool, **options)).has_table("studies"):
                raise _no_study(url)
            with _exclusive(parsed) if create else nullcontext(), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                storage = TrialStorage(
                    url,
                    engine_kwargs=options,
                    skip_table_creation=not create,
                )
    except ImportError as error:
        hint = f"; to install a driver of PostgreSQL: {install_command('postgres')}" if "psycopg" in str(error) else ""
        raise _unusable(url, error, hint) from None
    except RuntimeError as error:
        raise _unusable(url, error) from None
    if sqlite and create:
        event.listen(storage.engine, "connect", _tune_sqlite)
        storage.engine.dispose()
    return storage


def _tune_sqlite(connection: Any, _record: Any) -> None:
    """Use a write-ahead log instead of a rollback file per commit: as safe against kills and several times as fast."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def open_study(storage: RDBStorage, name: str, settings: StudySettings) -> optuna.Study:
    """Open or create a study, and store with it the config that it is created or resumed with.

    Raises:
        RecordError: the study exists with another config, was made by another version, or has a damaged trial.
    """
    # A new study without settings yet looks like one that was not made by budgetnet.
    with _exclusive(storage.engine.url):
        wanted = directions(settings.config.costs)
        study = optuna.create_study(storage=storage, study_name=name, directions=wanted, load_if_exists=True)
        if SETTINGS_KEY not in study.user_attrs:
            # Without trials it may be of a search that was killed just here.
            of_another = [direction.name.lower() for direction in study.directions] != wanted
            if of_another or study.get_trials(deepcopy=False):
                raise RecordError("study", name, "was not made by budgetnet; choose another study name")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(metric_names(settings.config.costs))
            study.set_user_attr(SETTINGS_KEY, json.dumps(settings.to_mapping()))
            return study
        found = study_settings(study)
        if found.digest != settings.digest:
            differing = named_few(found.differences(settings), most=4, separator="; ")
            raise RecordError("study", name, f"was made with {differing}; choose another study name, or none")
        resumed = settings.model_copy(update={"config": settings.config.resuming(found.config)}).to_mapping()
        if resumed != found.to_mapping():
            study.set_user_attr(SETTINGS_KEY, json.dumps(resumed))
    for number, damage in damaged_trials(study).items():
        raise RecordError("study", name, f"trial #{number} is damaged: {damage}; mend it or choose another study name")
    return study


def study_settings(study: optuna.Study) -> StudySettings:
    """Return the settings of a study, with the config of its search.

    Raises:
        RecordError: the study was not made by budgetnet, or by another version.
    """
    stored = study.user_attrs.get(SETTINGS_KEY)
    if stored is None:
        raise RecordError("study", study.study_name, "was not made by budgetnet")
    try:
        mapping = json.loads(stored)
    except (ValueError, TypeError, RecursionError):
        rule = f"is damaged: study_user_attributes, {SETTINGS_KEY} = {short_repr(stored)}: must be JSON in a string"
        raise RecordError("study", study.study_name, rule) from None
    if isinstance(mapping, dict) and mapping.get("schema_version") == 1:
        rule = "was made by an earlier version of budgetnet and cannot be read; choose another study name"
        raise RecordError("study", study.study_name, rule)
    try:
        return StudySettings.from_mapping(mapping)
    except InputError as error:
        rule = f"cannot be read by this version of budgetnet: {error.field} {error.rule}"
        raise RecordError("study", study.study_name, rule) from None


def find_study(storage: RDBStorage, name: str | None) -> optuna.Study:
    """Return the study of that name, or the one with the latest trial.

    Raises:
        RecordError: the study does not exist, or the storage has none.
    """
    known = study_ids(storage)
    if name not in known:
        require_no_folder(name)
    if not known:
        raise RecordError("study", name, "the storage has no study yet; budgetnet search creates one")
    if name is None:
        name = max(known, key=lambda each: (_last_start(storage, known[each]), known[each]))
    elif name not in known:
        raise RecordError("study", name, f"no such study; the storage has {', '.join(sorted(known))}")
    return optuna.load_study(study_name=name, storage=storage)


def require_no_folder(name: str | None) -> None:
    """Require that what is to name a study is no folder.

    Raises:
        RecordError: it is one.
    """
    if name is not None and exists(Path(name)) and Path(name).is_dir():
        rule = "is a folder without a run, and no study; --out FOLDER reads the studies in a folder"
        raise RecordError("study", name, rule)


def _last_start(storage: RDBStorage, study_id: int) -> str:
    trials = storage.get_all_trials(study_id, deepcopy=False)
    return max((str(trial.datetime_start or "") for trial in trials), default="")
