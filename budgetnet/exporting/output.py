"""Where a file is written: its path, and a temporary one until it is complete."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from budgetnet.common.errors import BudgetnetError, InputError
from budgetnet.exporting.programs import library_messages_disabled
from budgetnet.runs.run_files import require_no_run_file


def output_path(to: str | Path | None, *, name: str, suffix: str, form: str) -> Path:
    """Return the path of a file that is given by itself, by its folder or not at all.

    Args:
        to: the file or its folder, which need not exist; None for the current folder.
        name: name of the file without a suffix, where `to` is not a file.
        suffix: required suffix.
        form: name of the format, for the error.

    Raises:
        InputError: the file has another suffix, or is one of a run.
    """
    path = None if to is None else Path(to)
    # A path without a suffix is a folder, which need not exist yet.
    if path is None or path.is_dir() or not (path.suffix or path.exists()):
        return (path or Path()) / f"{name}{suffix}"
    if path.suffix != suffix:
        raise InputError("to", str(to), f"must end in {suffix} for {form}, or be a folder")
    require_no_run_file(path, field="to")
    return path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a path for the file in a temporary folder on the same disk, which is deleted at the end.

    Warnings and log messages of the libraries that write and run networks are disabled meanwhile.

    Raises:
        BudgetnetError: such an error was raised inside; the new one says that the file was not written.
        OSError: such an error was raised inside; the new one names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".writing")
    with folder as temporary, library_messages_disabled():
        try:
            yield Path(temporary) / path.name
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from None
        except BudgetnetError as error:
            raise BudgetnetError(f"{path}: not written, because {error}") from None
