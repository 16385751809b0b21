"""Run folders below a URL, from which workers fetch interrupted runs and to which they copy their progress."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from budgetnet.common.errors import BudgetnetError, BusyError, InputError
from budgetnet.common.files import remove_partial_files, write_bytes
from budgetnet.common.passwords import without_password
from budgetnet.runs.records import RunIdentity
from budgetnet.runs.store import RunFolder

_ATTEMPT = ".attempt"
"""File that holds the number of the attempt that owns the run."""
_MARK = ".driver-"
"""Prefix of the file that a driver leaves for its workers to find, of which each driver has its own."""
_CHECKPOINT, _RESULT = "checkpoint.safetensors", "result.json"
_LASTING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR}
"""Errors of a disk that do not pass by themselves."""


class StoreError(BudgetnetError):
    """The store cannot be read or written."""

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting
        """Whether trying again is in vain."""

    @classmethod
    def of(cls, error: Exception, url: str) -> StoreError:
        """Return the error for what the access to a URL has raised."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        lasting = isinstance(error, OSError) and error.errno in _LASTING
        return cls(f"{without_password(url)}: {' '.join(reason.split())}", lasting=lasting)


class RunStore:
    """Run folders below a URL that fsspec can open: a local path, ``s3://bucket/runs`` and others.

    Attempts to train the same run have increasing numbers. An attempt that another one has replaced, such as that of a
    machine that was out of reach for some time, cannot write any more.
    """

    def __init__(self, url: str) -> None:
        """Open the store; nothing is read or written yet.

        Args:
            url: URL or path of the folder of run folders.

        Raises:
            InputError: the URL's protocol is unknown, or a package that it needs is not installed.
        """
        # Slow to import, and not needed by commands that only check their input.
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise InputError("store", without_password(url), f"needs a package: {error}") from None
        except Exception as error:  # Packages for protocols raise errors of their own.
            raise InputError("store", without_password(url), f"cannot be opened: {error}") from None
        self._is_local = isinstance(self._files, LocalFileSystem)
        self.url = self._root if self._is_local else url
        """URL of the store; a local path is absolute."""
        self._pushed: dict[str, tuple[int, int]] = {}
        """Time of change and size of each file as it was copied last."""

    def leave_mark(self, text: str) -> None:
        """Leave a mark for `has_mark`, which also shows that the store can be written.

        Raises:
            StoreError: it cannot be written.
        """
        self._write(f"{_MARK}{text}", text.encode())

    def has_mark(self, text: str) -> bool:
        """Return whether the mark that `leave_mark` left is here, so that both see the same store."""
        self._files.invalidate_cache()
        return self._read(f"{_MARK}{text}") == text.encode()

    def remove_mark(self, text: str) -> None:
        """Remove the mark that `leave_mark` left, if the store can be reached."""
        with suppress(StoreError):
            self._try(self._files.rm_file, f"{_MARK}{text}")

    def pull(self, identity: RunIdentity, scratch: Path, *, attempt: int) -> RunFolder:
        """Copy a run to a folder on this machine and make this attempt its owner.

        Args:
            identity: identity of the run.
            scratch: local folder of run folders; its old content is deleted.
            attempt: number of the attempt.

        Returns:
            The local run folder, which does not exist if the run is new.

        Raises:
            BusyError: a later attempt owns the run.
            StoreError: the store cannot be read or written.
        """
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self._pushed.clear()
        self._files.invalidate_cache()
        found = sorted(str(path) for path in self._try(self._files.glob, f"*-{identity.short_digest}"))
        name = PurePosixPath(found[0]).name if found else identity.run_id
        self._require_owner(name, attempt)
        # First, so that nothing changes any more while the files are copied.
        self._write(f"{name}/{_ATTEMPT}", str(attempt).encode())
        if self._is_local:  # Partial files of workers that were killed.
            remove_partial_files(Path(self._root, name))
        for file in self.fetch(name, scratch):
            self._pushed[file.relative_to(scratch / name).as_posix()] = _state(file)
        return RunFolder(scratch / name)

    def push(self, folder: RunFolder, *, attempt: int) -> None:
        """Copy the files of a local run folder that have changed, the result last.

        Raises:
            BusyError: a later attempt owns the run.
            StoreError: the store cannot be read or written.
        """
        name = folder.path.name
        files = [file for file in folder.path.rglob("*") if file.is_file() and not file.name.startswith(".")]
        for file in sorted(files, key=lambda file: (file.name == _RESULT, file.name)):
            relative, state = file.relative_to(folder.path).as_posix(), _state(file)
            if self._pushed.get(relative) != state:
                self._require_owner(name, attempt)
                self._write(f"{name}/{relative}", file.read_bytes())
                self._pushed[relative] = state
        # A finished run has no checkpoint, and one that is trained on after it was pruned has no result.
        for gone in {_CHECKPOINT, _RESULT} & self._pushed.keys():
            if not (folder.path / gone).exists():
                self._require_owner(name, attempt)
                self._try(self._files.rm_file, f"{name}/{gone}")
                del self._pushed[gone]

    def fetch(self, name: str, out: Path) -> list[Path]:
        """Copy a run folder to a local folder of run folders, and return its files there.

        Args:
            name: name of the run folder.
            out: local folder of run folders.

        Raises:
            StoreError: the store cannot be read.
        """
        self._files.invalidate_cache()
        root = PurePosixPath(self._root) / name
        found = [PurePosixPath(str(path)).relative_to(root) for path in self._try(self._files.find, name)]
        files = [path for path in found if not path.name.startswith(".")]
        copies = []
        for relative in sorted(files, key=lambda path: (path.name == _RESULT, path)):
            copy = out / name / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(copy, self._try(self._files.cat_file, f"{name}/{relative}"))
            copies.append(copy)
        return copies

    def fetch_shared(self, name: str, out: Path) -> None:
        """Copy a folder that runs share, such as ``proxies/KEY``, to a local folder of run folders; it may be missing.

        Raises:
            StoreError: the store cannot be read.
        """
        for file in self.fetch(name, out):
            self._pushed[file.relative_to(out).as_posix()] = _state(file)

    def push_shared(self, folder: Path, name: str) -> None:
        """Copy the files below a local folder that have changed to a folder that runs share.

        It has no owner: where several runs write a file, any of their copies will do.

        Raises:
            StoreError: the store cannot be written.
        """
        for file in sorted(folder.rglob("*")):
            relative = (PurePosixPath(name) / file.relative_to(folder).as_posix()).as_posix()
            if file.is_file() and not file.name.startswith(".") and self._pushed.get(relative) != _state(file):
                self._write(relative, file.read_bytes())
                self._pushed[relative] = _state(file)

    def _require_owner(self, name: str, attempt: int) -> None:
        owner = self._read(f"{name}/{_ATTEMPT}")
        if owner is not None and int(owner) > attempt:
            raise BusyError("run folder", name, "another worker has taken over this run")

    def _read(self, relative: str) -> bytes | None:
        """Return the content of a file; None if there is no such file."""
        try:
            return bytes(self._try(self._files.cat_file, relative))
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _write(self, relative: str, content: bytes) -> None:
        self._try(self._replace, relative, content)

    def _replace(self, path: str, content: bytes) -> None:
        if self._is_local:
            write_bytes(Path(path), content)
        else:
            # Object stores replace an object as a whole.
            self._files.pipe_file(path, content)

    def _try(self, operation: Callable[..., Any], relative: str, *values: Any) -> Any:
        try:
            return operation(f"{self._root}/{relative}", *values)
        except Exception as error:  # Packages for protocols raise errors of their own.
            raise StoreError.of(error, f"{self.url}/{relative}") from error


def _state(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_mtime_ns, state.st_size
